"""What each operation does within a transaction, written once for all transactional engines.

| module | operations |
|---|---|
| `enqueue` | add jobs |
| `reserve` | hand jobs out |
| `settle` | what holders say: done, retry, release, cancel; extend |
| `change`, `purging` | what anybody may ask: cancel, reset, delete; purge |
| `edit` | what anybody may change of a waiting job |
| `finding` | jobs by what is known of them |
| `topics` | what is asked of a topic: its number, its settings; idle topics |
| `due` | what time does: promote, expire |
| `history`, `reports` | what is kept of a job's attempts; what its holders log and give |
| `transfer` | jobs out of a store and into another |
| `places` | where jobs go: queues, agendas, retention |
| `checking` | jobs against indexes against counts |
| `rebuild` | indexes and counts anew, out of the jobs |

Each reads and decides first, and only there may it refuse; then it writes.
"""
