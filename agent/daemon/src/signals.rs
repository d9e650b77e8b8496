use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver};

use farpool_common::log::{Log, info};

/// Returns the exit codes of the signals that ask the daemon to leave, as they arrive.
pub(super) fn signals(log: &Log) -> io::Result<Receiver<u8>> {
    note_hangups(log.clone())?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Only the first two matter.
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        loop {
            let code = next(&mut terminate, &mut interrupt).await;
            if sender.send(code).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Makes writes beyond the file size limit (ulimit -f) fail instead of killing this process. The signal is not ignored,
/// since workers would inherit that.
pub(super) fn survive_file_limit() -> io::Result<()> {
    signal(SignalKind::from_raw(nix::libc::SIGXFSZ)).map(drop)
}

/// Logs SIGHUP, so that closing the terminal does not stop the daemon.
fn note_hangups(log: Log) -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            info!(log, "SIGHUP ignored; there is nothing to reload");
        }
    });
    Ok(())
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> u8 {
    let kind = tokio::select! {
        _ = terminate.recv() => SignalKind::terminate(),
        _ = interrupt.recv() => SignalKind::interrupt(),
    };
    128 + u8::try_from(kind.as_raw_value()).unwrap_or(0)
}
