//! Invariants of every `linux.seccomp` section.

use super::{
    reference::{expected, run},
    *,
};
use Architecture::*;

/// Compiles a section and compares the program's answers for some calls with the profile. Fails if it cannot be compiled.
pub fn seccomp(section: &str) -> Result<(), String> {
    let profile = Profile::parse(section).map_err(|error| error.to_string())?;
    let program = compile(&profile).map_err(|error| error.to_string())?;
    check_form(&program);
    for architecture in [X86_64, X86, X32, Aarch64, Arm] {
        check_answers(&profile, &program, architecture);
    }
    Ok(())
}

/// Checks the form that the kernel requires of a program.
fn check_form(program: &[Instruction]) {
    assert!(program.len() <= MAX_INSTRUCTIONS);
    assert!(program.last().is_some_and(|last| last.operation == RETURN));
    for (at, one) in program.iter().enumerate() {
        let farthest = match one.operation {
            JUMP => one.value as usize,
            IF_EQUAL | IF_GREATER | IF_NOT_LESS => one.if_true.max(one.if_false).into(),
            LOAD => {
                assert!(one.value < 64 && one.value.is_multiple_of(4), "{one:?}");
                0
            }
            _ => 0,
        };
        assert!(at + 1 + farthest < program.len() || one.operation == RETURN, "{at}: {one:?}");
    }
}

/// Checks calls that the profile names, and some others.
fn check_answers(profile: &Profile, program: &[Instruction], architecture: Architecture) {
    let offset = if architecture == X32 { X32_BIT } else { 0 };
    let calls = architecture.calls();
    let known = |name: &str| profile.rules.iter().any(|rule| rule.names.iter().any(|n| n == name));
    let last = calls.iter().filter(|(number, name)| *number < PRIVATE && known(name)).map(|(n, _)| *n).max();
    for (number, name) in calls.iter().filter(|(number, name)| number % 64 == 0 || known(name)) {
        let beyond = last.is_some_and(|last| *number > last && *number < PRIVATE);
        for arguments in arguments(profile) {
            let call = Call { token: architecture.token(), number: offset + number, arguments };
            let answer = match is_let_run(profile, architecture) {
                false => Action::KILL_PROCESS,
                true if beyond && !profile.default.is_permissive() => Action::ENOSYS,
                true => expected(profile, architecture, name, &arguments),
            };
            assert_eq!(run(program, &call), answer, "{name} {arguments:x?} on {architecture:?}");
        }
    }
}

fn is_let_run(profile: &Profile, architecture: Architecture) -> bool {
    let named = |one| profile.architectures.contains(&one);
    named(architecture) && (architecture != X32 || named(X86_64))
}

/// Arguments: all zero, and the edges of the first conditions.
fn arguments(profile: &Profile) -> Vec<[u64; 6]> {
    let conditions = profile.rules.iter().flat_map(|rule| rule.conditions.iter().flatten()).take(4);
    let edge = |condition: &Condition, by: u64| {
        let mut arguments = [0; 6];
        arguments[condition.argument as usize] = condition.value.wrapping_add(by);
        arguments
    };
    let edges = conditions.flat_map(|condition| [0, 1, u64::MAX, 1 << 32].map(|by| edge(condition, by)));
    [[0; 6], [21; 6]].into_iter().chain(edges).collect()
}
