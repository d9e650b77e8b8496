use std::time::Duration;

use farpool_session::{Settings, Target, labels};
use farpool_worker::Initialised;

use super::*;
use crate::error::ErrorKind;

fn resolve(builder: Builder) -> Result<Settings, Error> {
    builder.local().resolve().map(|(_, settings)| settings)
}

#[test]
fn invalid_options_are_rejected_by_name() {
    let pool = Builder::default;
    for (builder, expected) in [
        (pool().processes(0), "at least 1 process"),
        (pool().processes(usize::MAX), "processes must be at most"),
        (pool().max_tasks_per_child(0), "max_tasks_per_child must be at least 1"),
        (pool().threads(0), "threads must be at least 1"),
        (pool().memory_limit(0), "memory_limit must be at least 1"),
        (pool().payload_limit(0), "payload_limit must be from 1"),
        (pool().payload_limit((2 << 30) + 1), "payload_limit must be from 1"),
        (pool().initializer_timeout(Duration::ZERO), "initializer_timeout must be above zero"),
        (pool().weight(0), "weight must be at least 1"),
        (pool().weight(10_001), "weight must be at most 10000"),
        (pool().threads(1025), "threads must be at most 1024"),
        (pool().require("", "x"), "the key of a required label"),
        (pool().require("gpu", "a100"), "gpu=a100 is required"),
        (pool().env("", "x"), "cannot be the name"),
        (pool().env("A=B", "x"), "cannot be the name"),
        (pool().env("A", "x\0"), "contains a zero byte"),
        (pool().env("FARPOOL_ADDRESS", "x"), "farpool itself sets"),
    ] {
        let error = resolve(builder).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(expected), "{error} / {expected}");
    }
}

#[test]
fn defaults_are_filled_in() {
    let Settings { processes, settings, weight, .. } = resolve(Builder::default()).unwrap();
    assert_eq!(weight, 1);
    assert!(processes >= 1);
    assert_eq!((settings.threads, settings.max_tasks_per_child, settings.memory_limit), (1, 0, 0));
    assert_eq!((settings.payload_limit, settings.initializer_timeout_ns), (1 << 30, 60_000_000_000));
    assert!(settings.initializer.is_empty());
}

#[test]
fn options_are_passed_on() {
    fn prepare(_: u64) {}
    let builder = Builder::default().processes(3).threads(50).max_tasks_per_child(7).memory_limit(9).name("x");
    let Settings { processes, settings, .. } = resolve(builder.payload_limit(5).initializer(prepare, (300,))).unwrap();
    assert_eq!((processes, settings.threads, settings.max_tasks_per_child), (3, 50, 7));
    assert_eq!((settings.memory_limit, settings.payload_limit, &*settings.name), (9, 5, "x"));
    assert!(!settings.initializer.is_empty());
    assert_eq!(<(u64,)>::decode(&settings.initializer_args).unwrap(), (300,));
}

#[test]
fn on_a_cluster_the_default_is_all_slots_and_labels_are_not_checked() {
    let builder = Builder::default().address("http://node7:7070").require("gpu", "a100").weight(5).env("A", "b");
    let (target, settings) = builder.resolve().unwrap();
    assert!(matches!(target, Target::Cluster(address) if address.to_string() == "http://node7:7070"));
    assert_eq!((settings.processes, settings.weight), (0, 5));
    assert_eq!(settings.require, [labels::required("gpu", "a100")]);
    assert_eq!(settings.environment, [("A".into(), "b".into())]);
    assert_eq!(Builder::default().address("farpool://x:1").resolve().unwrap_err().kind(), ErrorKind::InvalidArgument);
    let (target, _) = Builder::default().address("http://node7:7070").local().resolve().unwrap();
    assert!(matches!(target, Target::Here));
}

#[test]
fn a_missing_init_is_reported_with_advice() {
    for (state, words) in [
        (Initialised::No, "make `farpool::init();` the first line of main"),
        (Initialised::OutsideTest, "make `farpool::init();` the first line of the test"),
    ] {
        let error = resolve::require_init(state).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(words), "{error}");
    }
    resolve::require_init(Initialised::Yes).unwrap();
}
