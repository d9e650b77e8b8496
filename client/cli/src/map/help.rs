//! The help of `farpool map`. Lines fit a terminal of 80 columns.

pub(crate) const USAGE: &str = "\
farpool map [OPTIONS] COMMAND [ARGUMENT]... [::: ITEM...]...
       farpool map [OPTIONS] 'LINE FOR THE SHELL' [::: ITEM...]...";

pub(crate) const LONG: &str = "\
Run a command once per item, like GNU parallel: on the cores of this machine,
or on every host of a cluster if --address or FARPOOL_ADDRESS names one.
Options come first: what follows the first word of the command belongs to the
command.

Items are the words after `:::`, or the lines of stdin or of a file (-a FILE or
`:::: FILE`). Several sources give all combinations; the last one varies
fastest. `:::+` and `::::+` instead link a source with the one before it, item
by item; if one is shorter, it starts again from its beginning. `:::: -` is
stdin. The first source may be endless, unless others are linked to it; all
other sources, and linked ones, are kept in memory.

Several words are a program and its arguments, run without a shell: spaces, $
and * have no special meaning. A single word is a line for `sh -c`, with pipes
and all:
  farpool map convert -resize 50% {} small/{/} ::: *.jpg
  farpool map 'gzip -9 {} | wc -c' ::: *.log

Placeholders, and what they stand for:
  {}    the item                 photos/cat.small.jpg
  {.}   without its extension    photos/cat.small
  {/}   its file name            cat.small.jpg
  {//}  its folder               photos
  {/.}  name, no extension       cat.small
  {#}   the item's number        1, 2, 3, ...
  {1} {2} {2/} {2.} ...          of the first or second value of the item
Several sources, --colsep and -n give items several values: {} is all of them,
as separate words where it is a whole word, otherwise joined by spaces. A
missing value is empty. In a line for the shell, items are always quoted: {},
'{}' and \"{}\" mean the same. \\{} is {} itself. Without any placeholder the
item is appended.

--colsep cuts each item into columns at a plain string, not a pattern. -n gives
several items to one command, which succeeds, fails, is retried and recorded as
a whole. --pipe gives each command a block of the input on its stdin; the item
is then the block's number, and is not appended. A line longer than --block is
a block of its own; one longer than 256 MiB is an error.

Each item's output is printed in one piece, in input order: stdout to stdout,
stderr to stderr. Large outputs wait for their turn in an unnamed file in
TMPDIR. --line-buffer instead prints lines as they arrive, items interleaved;
--tag shows which item each line belongs to. Without --pipe, stdin is empty.
Items are read as they are needed: the input may be endless.

An item is done when its command has exited and no process is left in its
process group. Processes still running after --grace are killed, and named on
stderr; the item's outcome is still the command's own exit.

When an item fails (an exit code other than 0, a signal, --timeout), a line on
stderr says so at once. After that no more items are started: those already
dispatched (at most twice as many as run at once) finish, and the rest are
skipped. --keep-going continues instead. Ctrl-C kills everything at once, and
prints the outputs of the items that had finished.

--results FILE gets a line of JSON for each item as soon as it has finished.
However the map ended, the same call with --resume continues from there: it
compares the command and all items that have a line, stops before running
anything if they differ, and skips what is done; --retry-failed also runs
failed items again. With --pipe it compares the content of blocks, so --block
must be the same; --retry-failed cannot be combined with --pipe. Outputs that a
killed map had not printed yet are not printed later: use --unordered, which
prints each output when its line is written.

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
  farpool map convert -resize 50% {} small/{/} ::: *.jpg
  find . -name '*.log' -print0 | farpool map -0 'gzip -9 {} && echo {}'

See --help for placeholders, failures, clusters and exit codes.";

pub(crate) const EXAMPLES: &str = "\
Examples:
  farpool map convert {} {.}.jpg ::: *.png
  find . -name '*.log' -print0 | farpool map -0 gzip -9
  farpool map 'gzip -9 < {} | wc -c' ::: *.log
  farpool map ./simulate --seed {1} --size {2} ::: 1 2 3 ::: small large
  farpool map cp {1} backup/{2} :::: from.txt ::::+ to.txt
  farpool map --colsep , ./add-user {2} --mail {3} :::: users.csv
  farpool map -n 100 chmod a-w :::: files.txt
  farpool map --pipe --block 10MiB grep -c error < huge.log
  farpool map --tag ssh {} uptime :::: hosts.txt
  farpool map --retries 3 --timeout 30s curl -sfO < urls.txt
  farpool map --keep-going --results done.jsonl ./test ::: *.case
  farpool map --results done.jsonl --retry-failed ./test ::: *.case
  farpool map --line-buffer --tag ssh {} tail -f log :::: hosts.txt
  jq -r 'select(.exit_code != 0) | .item' done.jsonl       what failed
  farpool map --dry-run mv {} {//}/old-{/} ::: a/b.txt
  tail -f new.txt | farpool map --unordered ./import
  farpool map --detach nightly ./simulate :::: seeds.txt
  farpool results nightly --wait

Exit codes:
  0         every item succeeded
  1 to 100  this many items failed
  101       more than 100 failed
  125       farpool itself failed, or the command line is invalid
  141       the reader of the output has exited (as in `| head`)";
