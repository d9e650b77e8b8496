//! Checks whether a file can run on this host, with a better message than exec(2)'s "exec format error".

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes of an ELF header up to and including the machine.
const HEADER_BYTES: usize = 20;
/// ET_EXEC and ET_DYN; nearly all executables are position-independent (ET_DYN).
const RUNNABLE_TYPES: [u16; 2] = [2, 3];

/// The machine in the header of an ELF file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Machine {
    /// 32 or 64 bits.
    class: u8,
    /// Byte order: 1 little-endian, 2 big-endian.
    order: u8,
    number: u16,
}

/// The kind of a file.
enum Contents {
    Elf { machine: Machine, runnable: bool },
    Script,
    Other,
}

/// Checks that the executable at `path` is for this machine. The error is a fragment that continues "the program ...".
pub(super) fn check(path: &Path, host: &str) -> Result<(), String> {
    let own = match inspect(Path::new("/proc/self/exe")) {
        Ok(Contents::Elf { machine, .. }) => machine,
        // Without /proc there is nothing to compare with.
        _ => return Ok(()),
    };
    match inspect(path).map_err(|error| format!("cannot be read on host {host}: {error}"))? {
        Contents::Script => Ok(()),
        Contents::Elf { machine, runnable: true } if machine == own => Ok(()),
        Contents::Elf { machine, .. } if machine != own => {
            Err(format!("is built for {machine}, but host {host} is {own}"))
        }
        Contents::Elf { .. } | Contents::Other => Err("is not an executable file".to_owned()),
    }
}

fn inspect(path: &Path) -> io::Result<Contents> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    File::open(path)?.take(HEADER_BYTES as u64).read_to_end(&mut header)?;
    Ok(read(&header))
}

fn read(header: &[u8]) -> Contents {
    if header.starts_with(b"#!") {
        return Contents::Script;
    }
    let Some(header) = header.first_chunk::<HEADER_BYTES>().filter(|header| header.starts_with(b"\x7fELF")) else {
        return Contents::Other;
    };
    let (class, order) = (header[4], header[5]);
    let number = |at: usize| {
        let bytes = [header[at], header[at + 1]];
        if order == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    };
    Contents::Elf {
        machine: Machine { class, order, number: number(18) },
        runnable: RUNNABLE_TYPES.contains(&number(16)),
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match (self.number, self.class, self.order) {
            (3, ..) => "x86",
            (8, ..) => "mips",
            (20, ..) => "powerpc",
            (21, _, 1) => "powerpc64le",
            (21, ..) => "powerpc64",
            (22, ..) => "s390x",
            (40, ..) => "arm",
            (62, ..) => "x86_64",
            (183, ..) => "aarch64",
            (243, 1, _) => "riscv32",
            (243, ..) => "riscv64",
            (258, ..) => "loongarch64",
            (number, ..) => return write!(formatter, "machine type {number}"),
        };
        formatter.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_header() -> Vec<u8> {
        let mut header = vec![0; HEADER_BYTES];
        File::open("/proc/self/exe")
            .and_then(|mut file| file.read_exact(&mut header))
            .expect("the own executable can be read");
        header
    }

    #[test]
    fn files_that_cannot_run_here_are_rejected() {
        let folder = std::env::temp_dir().join(format!("farpool-elf-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("temporary files can be made");
        let checked = |header: &[u8]| {
            let path = folder.join("program");
            std::fs::write(&path, header).expect("temporary files can be made");
            check(&path, "worker-7")
        };
        let own = own_header();
        let mut foreign = own.clone();
        let other = if u16::from_le_bytes([own[18], own[19]]) == 183 { (62_u16, "x86_64") } else { (183, "aarch64") };
        foreign[18..20].copy_from_slice(&other.0.to_le_bytes());
        let mut object = own.clone();
        object[16..18].copy_from_slice(&1_u16.to_le_bytes());
        assert_eq!(checked(&own), Ok(()));
        assert_eq!(checked(b"#!/bin/sh\n"), Ok(()));
        let refused = checked(&foreign).expect_err("the program is for another machine");
        assert!(refused.contains(&format!("built for {}, but host worker-7 is ", other.1)), "{refused}");
        for file in [&object[..], &own[..10], b"", b"plain text, long enough for a header"] {
            assert_eq!(checked(file), Err("is not an executable file".to_owned()));
        }
        std::fs::remove_dir_all(&folder).expect("the folder can be removed");
        assert!(check(&folder, "worker-7").is_err_and(|refused| refused.contains("cannot be read on host worker-7")));
    }
}
