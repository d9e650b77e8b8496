//! What `farpool map --help` teaches. Lines fit a terminal of 80 columns.

pub(crate) const LONG: &str = "\
Run a command once for each item, over the pool, as GNU parallel does: on the
cores of this machine, or on every host of a cluster if --address or
FARPOOL_ADDRESS names one. Items are the lines of stdin, of a file (-a FILE), or
what stands behind `--`.

The command is run by `sh -c`. In it stands
  {}    the item                 photos/cat.small.jpg
  {.}   without its extension    photos/cat.small
  {/}   its file name            cat.small.jpg
  {//}  its folder               photos
  {/.}  both: name, bare         cat.small
  {#}   the item's number        1, 2, 3, ...
Items are quoted for the shell, whatever is in them: {}, '{}' and \"{}\" mean the
same. \\{} is left alone. Without any placeholder the item is appended.

Each item's output comes in one piece, in the order of the input: stdout to
stdout, stderr to stderr. stdin is empty. Large outputs are kept in a file
without a name below TMPDIR until their turn. --line-buffer prints lines as they
come instead, of all items mixed; --tag says whose each is. Items are read as
they are needed: the input may be endless.

An item is done when its command has exited and nothing that it started is left
in its process group. What is still there after --grace is killed, and named on
stderr; how the command ended counts all the same.

When an item fails (an exit code other than 0, a signal, --timeout), a line on
stderr says so at once. No further items are given out then; those that were are
finished (at most twice as many as run at once), and the rest is left.
--keep-going goes on instead. Ctrl-C kills everything at once, and prints what
had finished.

--results FILE has a line of JSON for each item as soon as it has finished.
After an end of any kind the same call with --resume goes on from it: it
compares the command and all items that have a line, refuses what differs before
anything runs, and skips what is done; --retry-failed runs failures again. What
a killed map had not printed yet is not printed later: --unordered prints each
output when its line is written.

With --detach NAME the cluster keeps the items and their outputs on its disk,
and this returns when it has all of them; nothing runs before. Every item runs
then, as with --keep-going, whatever becomes of this machine. `farpool results
NAME` prints the outputs, from anywhere and as often as you like.

On this machine commands see your whole environment. On a cluster they see PATH,
HOME and LANG as they are here, and what --env chooses. They start in a folder
of this one's name if their host has one, otherwise in an empty one. What they
call must be installed on the hosts: no files are copied.";

pub(crate) const SHORT_EXAMPLES: &str = "\
Examples:
  ls *.png | farpool map --program 'convert {} {.}.jpg'
  farpool map --program 'gzip -9' -- *.log

--help tells more: placeholders, failures, clusters, exit codes.";

pub(crate) const EXAMPLES: &str = "\
Examples:
  ls *.png | farpool map --program 'convert {} {.}.jpg'
  find . -name '*.log' -print0 | farpool map -0 --program 'gzip -9'
  farpool map --tag --program 'ssh {} uptime' -a hosts.txt
  farpool map --retries 3 --timeout 30s --program 'curl -sfO {}' < urls.txt
  farpool map --keep-going --results done.jsonl --program ./test -- *.case
  farpool map --results done.jsonl --retry-failed --program ./test -- *.case
  farpool map --line-buffer --tag --program 'ssh {} tail -f log' -a hosts.txt
  jq -r 'select(.exit_code != 0) | .item' done.jsonl       what failed
  farpool map --dry-run --program 'mv {} {//}/old-{/}' -- a/b.txt
  tail -f new.txt | farpool map --unordered --program ./import
  farpool map --detach nightly --program ./simulate -a seeds.txt
  farpool results nightly --wait

Exit codes:
  0         every item succeeded
  1 to 100  so many items failed
  101       more than 100 failed
  125       farpool itself failed, or the command line makes no sense
  141       nobody reads the output any more (as in `| head`)";
