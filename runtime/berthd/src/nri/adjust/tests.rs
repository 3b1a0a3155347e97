#![allow(clippy::unwrap_used)]

use berth_nri::nri::{
    Container, ContainerUpdate, KeyValue, LinuxContainerAdjustment, LinuxContainerUpdate, LinuxMemory, Mount,
    OptionalInt64,
};

use super::*;

fn creation() -> Creation {
    let container = Container {
        id: "c".into(),
        env: vec!["OLD=1".into()],
        mounts: vec![Mount { destination: "/old".into(), ..Default::default() }],
        ..Default::default()
    };
    Creation::new(CreateContainerRequest { container: Some(container).into(), ..Default::default() })
}

fn answer(adjust: ContainerAdjustment) -> CreateContainerResponse {
    CreateContainerResponse { adjust: Some(adjust).into(), ..Default::default() }
}

fn env(entries: &[(&str, &str)]) -> CreateContainerResponse {
    let entry = |(key, value): &(&str, &str)| KeyValue {
        key: (*key).into(),
        value: (*value).into(),
        ..Default::default()
    };
    answer(ContainerAdjustment { env: entries.iter().map(entry).collect(), ..Default::default() })
}

fn memory(limit: i64) -> LinuxResources {
    let limit = Some(OptionalInt64 { value: limit, ..Default::default() });
    let memory = LinuxMemory { limit: limit.into(), ..Default::default() };
    LinuxResources { memory: Some(memory).into(), ..Default::default() }
}

fn update(id: &str, limit: i64, ignore_failure: bool) -> ContainerUpdate {
    let linux = LinuxContainerUpdate { resources: Some(memory(limit)).into(), ..Default::default() };
    ContainerUpdate {
        container_id: id.into(),
        linux: Some(linux).into(),
        ignore_failure,
        ..Default::default()
    }
}

#[test]
fn a_conflict_names_both_plugins_and_the_field() {
    let mut creation = creation();
    creation.collect(env(&[("COLOUR", "red")]), "10-a").unwrap();
    let error = creation.collect(env(&[("COLOUR", "blue")]), "20-b").unwrap_err();
    assert_eq!(error.to_string(), "NRI plugins 20-b and 10-a both tried to set Env COLOUR");
}

#[test]
fn a_name_may_begin_with_the_sign_that_takes_away() {
    let mut creation = creation();
    creation.collect(env(&[("x", "kept"), ("--y", "")]), "10-a").unwrap();
    creation.collect(env(&[("--x", "")]), "20-b").unwrap();
    let names: Vec<_> = creation.adjustment.env.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(names, ["--y", "x", "--x"]);
}

#[test]
fn a_plugin_may_take_away_what_another_set_and_set_it_anew() {
    let mut creation = creation();
    creation.collect(env(&[("COLOUR", "red")]), "10-a").unwrap();
    creation.collect(env(&[("-COLOUR", ""), ("COLOUR", "blue")]), "20-b").unwrap();
    assert_eq!(creation.request.container.env, ["OLD=1", "COLOUR=blue"]);
    let set: Vec<_> = creation.adjustment.env.iter().filter(|one| !one.key.starts_with('-')).collect();
    assert_eq!((set.len(), set[0].value.as_str()), (1, "blue"));
    assert!(creation.collect(env(&[("COLOUR", "green")]), "30-c").is_err());
}

#[test]
fn the_next_plugin_sees_what_the_ones_before_have_left() {
    let mut creation = creation();
    let mount = |destination: &str| Mount { destination: destination.into(), ..Default::default() };
    let mounts = vec![mount("-/old"), mount("/new")];
    creation.collect(answer(ContainerAdjustment { mounts, ..Default::default() }), "10-a").unwrap();
    creation.collect(env(&[("-OLD", "")]), "20-b").unwrap();
    let seen = &creation.request.container;
    assert_eq!(seen.mounts.iter().map(|mount| &mount.destination[..]).collect::<Vec<_>>(), ["/new"]);
    assert!(seen.env.is_empty());
    assert_eq!(creation.adjustment.mounts.len(), 2, "the removal is kept for the container itself");
}

#[test]
fn limits_conflict_value_by_value_and_are_put_together() {
    let mut creation = creation();
    let limits = |resources| {
        let linux = LinuxContainerAdjustment { resources: Some(resources).into(), ..Default::default() };
        answer(ContainerAdjustment { linux: Some(linux).into(), ..Default::default() })
    };
    creation.collect(limits(memory(1000)), "10-a").unwrap();
    let mut cpu = LinuxResources::new();
    cpu.cpu.mut_or_insert_default().cpus = "0".into();
    creation.collect(limits(cpu), "20-b").unwrap();
    let collected = &creation.adjustment.linux.resources;
    assert_eq!((collected.memory.limit.value, &collected.cpu.cpus[..]), (1000, "0"));
    let error = creation.collect(limits(memory(2000)), "30-c").unwrap_err();
    assert!(error.to_string().ends_with("30-c and 10-a both tried to set MemLimit"), "{error}");
}

#[test]
fn arguments_are_one_plugins_unless_taken_away() {
    let args = |args: &[&str]| {
        let args = args.iter().map(|&arg| arg.into()).collect();
        answer(ContainerAdjustment { args, ..Default::default() })
    };
    let mut creation = creation();
    creation.collect(args(&["a"]), "10-a").unwrap();
    assert!(creation.collect(args(&["b"]), "20-b").is_err());
    creation.collect(args(&["", "c"]), "30-c").unwrap();
    assert_eq!(creation.adjustment.args, ["c"]);
    creation.collect(args(&[""]), "40-d").unwrap();
    assert!(creation.adjustment.args.is_empty() && creation.request.container.args.is_empty());
}

#[test]
fn updates_of_others_are_put_together_and_may_be_left_out_when_they_may_fail() {
    let mut changes = Changes::default();
    changes.collect(vec![update("x", 1, false), update("y", 2, false)], "10-a").unwrap();
    changes.collect(vec![update("x", 3, true)], "20-b").unwrap();
    assert!(changes.collect(vec![update("x", 3, false)], "20-b").is_err());
    let limits: Vec<_> = changes
        .updates()
        .iter()
        .map(|one| (one.container_id.clone(), one.linux.resources.memory.limit.value))
        .collect();
    assert_eq!(limits, [("x".to_owned(), 1), ("y".to_owned(), 2)]);
}

#[test]
fn a_container_cannot_be_updated_while_it_is_created() {
    let answer = CreateContainerResponse { update: vec![update("c", 1, true)], ..Default::default() };
    assert!(creation().collect(answer, "10-a").is_err());
}

#[test]
fn an_update_is_what_the_caller_wants_with_what_plugins_change_of_it() {
    let request = UpdateContainerRequest {
        container: Some(Container { id: "c".into(), ..Default::default() }).into(),
        linux_resources: Some(memory(100)).into(),
        ..Default::default()
    };
    let mut updating = Update::new(request);
    let wanted = vec![update("c", 200, false), update("x", 5, false)];
    updating.collect(UpdateContainerResponse { update: wanted, ..Default::default() }, "10-a").unwrap();
    assert_eq!(updating.request.linux_resources.memory.limit.value, 200);
    assert_eq!(updating.changes.updates().len(), 1);
}

#[test]
fn validators_are_told_who_set_what() {
    let mut creation = creation();
    creation.collect(env(&[("COLOUR", "red"), ("-OLD", "")]), "10-a").unwrap();
    let owners = creation.changes.owners();
    let env = &owners.owners["c"].compound[&(berth_nri::nri::Field::Env as i32)].owners;
    assert_eq!((env["COLOUR"].as_str(), env["OLD"].as_str()), ("10-a", "-10-a"));
}
