//! The help of `farpool map`. Lines fit a terminal of 80 columns.

pub(crate) const LONG: &str = "\
Run a command once per item, like GNU parallel: on the cores of this machine, or
on every host of a cluster if --address or FARPOOL_ADDRESS names one. Items are
the lines of stdin or of a file (-a FILE), or the arguments after `--`.

The command is run by `sh -c`. Its placeholders are
  {}    the item                 photos/cat.small.jpg
  {.}   without its extension    photos/cat.small
  {/}   its file name            cat.small.jpg
  {//}  its folder               photos
  {/.}  name, no extension       cat.small
  {#}   the item's number        1, 2, 3, ...
Items are always quoted for the shell: {}, '{}' and \"{}\" mean the same. \\{} is
left alone. Without any placeholder the item is appended.

Each item's output is printed in one piece, in input order: stdout to stdout,
stderr to stderr. stdin is empty. Large outputs wait for their turn in an unnamed
file in TMPDIR. --line-buffer instead prints lines as they arrive, all items
mixed; --tag shows which item each line belongs to. Items are read as they are
needed: the input may be endless.

An item is done when its command has exited and no process is left in its process
group. Processes still there after --grace are killed, and named on stderr; the
command's own exit still counts.

When an item fails (an exit code other than 0, a signal, --timeout), a line on
stderr says so at once. After that no more items are started; those already given
out (at most twice as many as run at once) finish, and the rest is skipped.
--keep-going continues instead. Ctrl-C kills everything at once, and prints what
had finished.

--results FILE gets a line of JSON for each item as soon as it has finished.
However the map ended, the same call with --resume continues from there: it
compares the command and all items that have a line, stops before running
anything if they differ, and skips what is done; --retry-failed also runs failed
items again. Outputs that a killed map had not printed yet are not printed later:
--unordered prints each output when its line is written.

With --detach NAME the cluster keeps the items and their outputs on its disk.
The command returns when the cluster has all items; nothing runs before. Then
every item runs, as with --keep-going, even if this machine goes away. `farpool
results NAME` prints the outputs, from anywhere and as often as you like.

On this machine commands see your whole environment. On a cluster they see your
PATH, HOME and LANG, and the variables given with --env. They start in the
directory with the same path as this one if their host has it, otherwise in an
empty one. The programs they call must be installed on the hosts: no files are
copied.";

pub(crate) const SHORT_EXAMPLES: &str = "\
Examples:
  ls *.png | farpool map --program 'convert {} {.}.jpg'
  farpool map --program 'gzip -9' -- *.log

See --help for placeholders, failures, clusters and exit codes.";

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
  1 to 100  this many items failed
  101       more than 100 failed
  125       farpool itself failed, or the command line is invalid
  141       nobody reads the output any more (as in `| head`)";
