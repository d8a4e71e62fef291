"""Flow control: who goes first, how many at once, what if it is too much.

| module | |
|---|---|
| `shares` | several topics in one call |
| `groups`, `turns` | lanes of groups, and their turn |
| `ageing` | old jobs of low priority |
| `limits` | pause, concurrency, rates |
| `lingering` | what a canceled job's holder goes on taking up |
| `uniques` | unique keys |
| `deadlines` | jobs that have to be handed out in time |
| `terms` | what the three before ask for when a job moves |
| `caps`, `room` | how many may wait; telling those who wait for room |
| `overview` | all of it, for an operator |
"""
