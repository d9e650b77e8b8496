//! Shell completions and manual pages, generated from the definition of the command line.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::generate;
use clap_complete::shells::{Bash, Fish, Zsh};
use clap_mangen::Man;

use crate::cli::{Cli, Shell};
use crate::streams;

/// The source that manual pages name.
const SOURCE: &str = concat!("farpool ", env!("FARPOOL_VERSION"));

/// Runs `farpool completions SHELL`.
pub(crate) fn completions(shell: Shell) -> Result<(), String> {
    let (mut command, mut text) = (Cli::command(), Vec::new());
    match shell {
        Shell::Bash => generate(Bash, &mut command, "farpool", &mut text),
        Shell::Zsh => generate(Zsh, &mut command, "farpool", &mut text),
        Shell::Fish => generate(Fish, &mut command, "farpool", &mut text),
    }
    print(&text)
}

/// Runs `farpool man [DIR]`.
pub(crate) fn manuals(folder: Option<&Path>) -> Result<(), String> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let Some(folder) = folder else { return print(page("farpool", &command)?.as_bytes()) };
    fs::create_dir_all(folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    let parts = command.get_subcommands().filter(|part| !part.is_hide_set());
    let parts = parts.filter_map(|part| Some((part.get_display_name()?, part)));
    for (name, part) in parts.chain([("farpool", &command)]) {
        let path = folder.join(format!("{name}.1"));
        fs::write(&path, page(name, part)?).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

fn page(name: &str, command: &Command) -> Result<String, String> {
    let mut text = Vec::new();
    let rendered = Man::new(command.clone()).title(name).source(SOURCE).render(&mut text);
    rendered.map_err(|error| format!("cannot render the manual page of {name}: {error}"))?;
    let text = String::from_utf8_lossy(&text);
    // These sections keep the line breaks and columns of the help.
    let mut page = String::new();
    let mut preformatted = false;
    for line in text.lines() {
        if line.starts_with(".SH ") && std::mem::take(&mut preformatted) {
            page += ".fi\n";
        }
        match line {
            ".SH EXTRA" => page += ".SH EXAMPLES\n.nf\n",
            ".SH DESCRIPTION" => page += ".SH DESCRIPTION\n.nf\n",
            line => {
                page += line;
                page.push('\n');
            }
        }
        preformatted |= matches!(line, ".SH EXTRA" | ".SH DESCRIPTION");
    }
    Ok(page)
}

fn print(text: &[u8]) -> Result<(), String> {
    match streams::stdout().and_then(|mut stdout| stdout.write_all(text)) {
        // The reader has exited, which is no error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("cannot write to stdout: {error}")),
        _ => Ok(()),
    }
}
