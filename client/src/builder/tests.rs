use std::time::Duration;

use super::*;
use crate::error::ErrorKind;
use crate::settings::Settings;

fn resolve(builder: Builder) -> Result<Settings, Error> {
    builder.local().resolve()
}

#[test]
fn options_without_a_meaning_are_refused_by_name() {
    let pool = Builder::default;
    for (builder, expected) in [
        (pool().processes(0), "at least 1 process"),
        (pool().processes(usize::MAX), "processes must be at most"),
        (pool().max_tasks_per_child(0), "max_tasks_per_child must be at least 1"),
        (pool().threads(0), "threads must be at least 1"),
        (pool().memory_limit(0), "memory_limit must be at least 1"),
        (pool().payload_limit(0), "payload_limit must be from 1"),
        (pool().payload_limit((2 << 30) + 1), "payload_limit must be from 1"),
        (pool().initializer_timeout(Duration::ZERO), "initializer_timeout must be longer"),
    ] {
        let error = resolve(builder).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(expected), "{error} / {expected}");
    }
}

#[test]
fn defaults_are_filled_in() {
    let Settings { processes, settings } = resolve(Builder::default()).unwrap();
    assert!(processes >= 1);
    assert_eq!((settings.threads, settings.max_tasks_per_child, settings.memory_limit), (1, 0, 0));
    assert_eq!((settings.payload_limit, settings.initializer_timeout_ns), (1 << 30, 60_000_000_000));
    assert!(settings.initializer.is_empty());
}

#[test]
fn options_are_passed_on() {
    fn prepare(_: u64) {}
    let builder = Builder::default().processes(3).threads(50).max_tasks_per_child(7).memory_limit(9).name("x");
    let Settings { processes, settings } = resolve(builder.payload_limit(5).initializer(prepare, (300,))).unwrap();
    assert_eq!((processes, settings.threads, settings.max_tasks_per_child), (3, 50, 7));
    assert_eq!((settings.memory_limit, settings.payload_limit, &*settings.name), (9, 5, "x"));
    assert!(!settings.initializer.is_empty());
    assert_eq!(<(u64,)>::decode(&settings.initializer_args).unwrap(), (300,));
}

#[test]
fn a_cluster_is_not_to_be_had_yet() {
    let error = Builder::default().address("farpool://somewhere:1").resolve().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("this machine only"), "{error}");
}

#[test]
fn a_program_that_forgot_init_is_told_what_to_do() {
    let error = resolve::require_init(false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("make `farpool::init();` the first line of main"), "{error}");
}
