//! Reasons why a program does not start.

use std::fmt;
use std::io::{self, Write};
use std::process;

use super::SettingsReport;

/// Why a program ends before it has started.
#[derive(Debug)]
pub enum Stop {
    /// Its settings are invalid, or it was asked for its help or version.
    Usage(clap::Error),
    /// It was asked to show its settings.
    PrintConfig(SettingsReport),
}

impl Stop {
    /// Prints the reason, and ends the process.
    pub fn exit(self) -> ! {
        match self {
            Self::Usage(error) => error.exit(),
            Self::PrintConfig(report) => {
                let mut stdout = io::stdout().lock();
                let shown = write!(stdout, "{report}").and_then(|()| stdout.flush());
                process::exit(shown.is_err().into())
            }
        }
    }
}

impl From<clap::Error> for Stop {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => error.fmt(f),
            Self::PrintConfig(report) => report.fmt(f),
        }
    }
}
