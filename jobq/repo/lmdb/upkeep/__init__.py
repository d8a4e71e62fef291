"""The operator's half of the LMDB adapter: backup, restore, compact, doctor, salvage.

| module | what it is for |
|---|---|
| `backup`, `compact`, `restore` | a copy of the data file: elsewhere, in its place, or back |
| `copying` | what they share: the copy, its verification, and a file that appears whole |
| `alone` | having a queue alone, and putting another data file in place |
| `child` | a process of its own for what the engine may die of |
| `records` | every record of a file, read through the engine |
| `pages` | the pages of a file, read without the engine |
| `heads` | which of them lead to the last commit, and whether that is beyond doubt |
| `doctor` | what is wrong with a queue, and what is to be done |
| `finding` | where sound records stand on the pages |
| `others` | what the rest of the file says of jobs, so that old records are known |
| `salvage` | the jobs that can still be read out of a damaged file |

Nothing here is imported as long as nobody asks for it.
"""
