//! Which process has started which.

use std::fs;

/// Longer lines of descent are not followed: nobody has them but whoever wants to keep this agent busy.
const MOST: usize = 64;

/// The process itself, its parent, the parent of that, ...: as far as this process can see.
pub(crate) fn ancestors(pid: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(pid), |pid| parent(*pid)).take(MOST)
}

fn parent(pid: u32) -> Option<u32> {
    // That of the thread: the process's own sums up over all of its threads, which takes longer the more there are.
    let stat = fs::read(format!("/proc/{pid}/task/{pid}/stat")).ok()?;
    // `pid (name) state parent ...`: the name is any bytes, parentheses among them.
    let behind_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let parent = std::str::from_utf8(&stat[behind_name..]).ok()?.split_ascii_whitespace().nth(1)?;
    parent.parse().ok().filter(|parent| *parent > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_descends_from_its_parent_and_from_init() {
        let own = std::process::id();
        let line: Vec<u32> = ancestors(own).collect();
        assert_eq!(line[..2], [own, std::os::unix::process::parent_id()]);
        assert!(line.len() < MOST && !line.contains(&0), "{line:?}");
    }

    #[test]
    fn a_process_that_does_not_exist_has_no_parent() {
        assert_eq!(ancestors(u32::MAX).collect::<Vec<_>>(), [u32::MAX]);
    }
}
