//! Memory limits of this process's control groups, in versions 1 and 2.
//!
//! A limit holds for a group and all groups below it. So the limits of the groups above count too, as far as this
//! process can see them: in a container the topmost visible group is the container's.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Returns the lowest limit of all groups that this process is in; `None`: there is no limit. `root`: the root of the
/// system's files, which is `/` except in tests.
pub(super) fn memory_limit(root: &Path) -> Option<u64> {
    let groups = read(root, "/proc/self/cgroup")?;
    let mounts = read(root, "/proc/self/mountinfo")?;
    let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::parse).collect();
    let limits = groups.lines().filter_map(|line| {
        // "4:memory:/path", and "0::/path" for version 2
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let version_2 = controllers.is_empty();
        if !version_2 && !controllers.split(',').any(|controller| controller == "memory") {
            return None;
        }
        let mount = mounts.iter().find(|mount| mount.version_2 == version_2)?;
        let names: &[&str] = if version_2 { &["memory.max", "memory.high"] } else { &["memory.limit_in_bytes"] };
        mount.lowest_limit(root, Path::new(path), names)
    });
    limits.min()
}

/// Where the groups that limit memory are mounted.
struct Mount<'t> {
    version_2: bool,
    /// The group that is visible at the mount point.
    visible_root: &'t Path,
    mount_point: &'t Path,
}

impl<'t> Mount<'t> {
    /// Reads a line of mountinfo: "36 35 98:0 /shown /place rw,noatime - cgroup cgroup rw,memory".
    fn parse(line: &'t str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (visible_root, mount_point) = (Path::new(mount.next()?), Path::new(mount.next()?));
        let mut file_system = file_system.split(' ');
        let (kind, options) = (file_system.next()?, file_system.nth(1)?);
        let is_memory = || options.split(',').any(|option| option == "memory");
        match kind {
            "cgroup2" => Some(Self { version_2: true, visible_root, mount_point }),
            "cgroup" if is_memory() => Some(Self { version_2: false, visible_root, mount_point }),
            _ => None,
        }
    }

    fn lowest_limit(&self, root: &Path, group: &Path, names: &[&str]) -> Option<u64> {
        // Groups above the visible one cannot be read, nor can groups that another namespace names.
        let below = group.strip_prefix(self.visible_root).unwrap_or(Path::new(""));
        let below: PathBuf = below.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        let place = under(root, self.mount_point);
        let folders = below.ancestors().map(|group| place.join(group));
        let files = folders.flat_map(|folder| names.iter().map(move |name| folder.join(name)));
        // "max" means no limit.
        files.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
    }
}

fn read(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(under(root, Path::new(path))).ok()
}

fn under(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the limit of a system with these files.
    fn check(name: &str, files: &[(&str, &str)], expected: Option<u64>) {
        let root = std::env::temp_dir().join(format!("farpool-cgroup-{}-{name}", std::process::id()));
        for (path, text) in files {
            let path = under(&root, Path::new(path));
            fs::create_dir_all(path.parent().expect("the file's path has no parent"))
                .expect("cannot create the directory");
            fs::write(path, text).expect("cannot write the file");
        }
        assert_eq!(memory_limit(&root), expected, "{name}");
        fs::remove_dir_all(&root).expect("cannot remove the directory");
    }

    const VERSION_2: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
    const VERSION_1: &str = "\
        31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
        32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn version_2() {
        let groups = ("/proc/self/cgroup", "0::/system.slice/farpool.service\n");
        let mounts = ("/proc/self/mountinfo", VERSION_2);
        let own = "/sys/fs/cgroup/system.slice/farpool.service/memory.max";
        let above = "/sys/fs/cgroup/system.slice/memory.max";
        check("own", &[groups, mounts, (own, "536870912\n"), (above, "max\n")], Some(512 << 20));
        check("above", &[groups, mounts, (own, "max\n"), (above, "1048576\n")], Some(1 << 20));
        check("none", &[groups, mounts, (own, "max\n")], None);
        let high = "/sys/fs/cgroup/system.slice/farpool.service/memory.high";
        check("high", &[groups, mounts, (own, "2097152\n"), (high, "1048576\n")], Some(1 << 20));
        // A container that sees only its own group.
        let groups = ("/proc/self/cgroup", "0::/\n");
        check("container", &[groups, mounts, ("/sys/fs/cgroup/memory.max", "536870912\n")], Some(512 << 20));
        let groups = ("/proc/self/cgroup", "0::/../../elsewhere\n");
        check("elsewhere", &[groups, mounts, ("/sys/fs/cgroup/memory.max", "1048576\n")], Some(1 << 20));
    }

    #[test]
    fn version_1() {
        let groups = ("/proc/self/cgroup", "5:cpu:/\n4:hugetlb,memory:/docker/abc\n0::/\n");
        let mounts = ("/proc/self/mountinfo", VERSION_1);
        let own = "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes";
        let top = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        let unlimited = "9223372036854771712\n";
        check("v1-own", &[groups, mounts, (own, "536870912\n"), (top, unlimited)], Some(512 << 20));
        // A container that sees its own group at the top, under the name it has on the host.
        check("v1-container", &[groups, mounts, (top, "536870912\n")], Some(512 << 20));
        let shown = "32 30 0:28 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let mounts = ("/proc/self/mountinfo", shown);
        check("v1-shown", &[groups, mounts, (top, "536870912\n")], Some(512 << 20));
    }

    #[test]
    fn a_system_without_groups() {
        check("nothing", &[("/proc/self/cgroup", ""), ("/proc/self/mountinfo", "")], None);
        check("no-files", &[("/proc/meminfo", "")], None);
        check("nonsense", &[("/proc/self/cgroup", "::::\n4\n"), ("/proc/self/mountinfo", "- - -\nx")], None);
    }
}
