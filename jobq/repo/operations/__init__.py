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
| `due` | what time does: promote, expire, lapse |
| `history`, `reports` | what is kept of a job's attempts; what its holders log and give |
| `transfer` | jobs out of a store and into another |
| `places` | where jobs go: queues, agendas, retention |
| `soon` | when the next thing falls due; if that is shortly, who waits has to know |
| `passing` | whom a waiter has to call in its stead |
| `flow` | groups, shares, limits, unique keys, deadlines, caps: a package of its own |
| `checking`, `checking_places`, `checking_flow` | jobs against indexes against counts |
| `rebuild`, `rebuild_flow`, `mending` | indexes, counts and flow control anew, out of the jobs |
| `damage` | records that contradict each other; setting a job aside that cannot be read |

Each reads and decides first, and only there may it refuse; then it writes.
"""
