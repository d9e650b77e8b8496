//! Defaults of settings that depend on this host.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::cgroup;

/// Returns the directory that systemd has made for the service, or the user's cache.
pub(super) fn default_programs() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    variable("CACHE_DIRECTORY")
        .map(|directory| directory.join("programs"))
        .unwrap_or_else(|| cache().unwrap_or_else(|| "/var/cache".into()).join("farpool/coordinator"))
}

/// Returns the default limit of the coordinator's memory.
pub(super) fn quarter_of_memory() -> u64 {
    // A gigabyte if the system does not report its memory.
    let host = memory_of_host(Path::new("/proc/meminfo")).unwrap_or(4 << 30);
    let group = cgroup::memory_limit(Path::new("/"));
    let quarter = host.min(group.unwrap_or(u64::MAX)) / 4;
    // Whole MiB are easier to read.
    quarter >> 20 << 20
}

/// Returns a random id.
pub(super) fn random_id() -> [u8; 16] {
    // The standard library seeds its hash maps at random.
    let random = || RandomState::new().hash_one(SystemTime::now()).to_le_bytes();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random());
    id[8..].copy_from_slice(&random());
    id
}

fn memory_of_host(meminfo: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(meminfo).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_host_is_read() {
        assert!(memory_of_host(Path::new("/proc/meminfo")).is_some_and(|bytes| bytes > 1 << 20));
        assert_eq!(memory_of_host(Path::new("/proc/version")), None);
    }
}
