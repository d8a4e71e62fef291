#!/bin/sh
# A worker without a line of Python: any program can handle the jobs of a topic.
#
# It gets the payload as JSON on its standard input. Exit status 0 is done, 75 "not now", any other a
# retry, with the end of its stderr as the error. What it prints is kept in the job's log.
#
#     sh examples/shell_worker.sh
#
# Prints:
# mail to ann, at attempt 1
# no route to bob, at attempt 1
# mail to bob, at attempt 2
# done: 2
set -eu

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
export JOBQ_DB="$directory/queue" # for every `jobq` below; or jobq --db PATH …
jobq init >"$directory/init"

# Jobs in: one, or one for each line of a file.
ann=$(jobq jobs enqueue mail '"ann"')
bob=$(echo '"bob"' | jobq jobs enqueue mail --lines --file - --min-backoff 50ms)

# The program; sh, curl, ffmpeg, whatever there is.
cat >"$directory/send" <<'END'
name=$(tr -d '"')
if [ "$name$JOBQ_ATTEMPT" = bob1 ]; then
    echo "no route to $name, at attempt $JOBQ_ATTEMPT" >&2
    exit 1
fi
echo "mail to $name, at attempt $JOBQ_ATTEMPT"
END

# Three tries and then an end; without --max-jobs it works until SIGTERM.
jobq work mail --max-jobs 3 --quiet --exec sh "$directory/send"

for id in $ann $bob; do
    jobq jobs logs "$id" | cut -c 27- # without the times
done
echo "done: $(jobq jobs list --topic mail --status done --json | wc -l)"
