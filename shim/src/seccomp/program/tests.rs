//! Programs are interpreted and compared with the profile.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::{
    reference::{expected, holds, run},
    *,
};
use crate::seccomp::profile::Action as A;

const ALLOW: A = A(0x7fff_0000);
const LOG: A = A(0x7ffc_0000);
const EPERM: A = A(0x0005_0001);

fn always(names: &[&str], action: A) -> Rule {
    Rule { names: names.iter().map(|name| name.to_string()).collect(), action, conditions: Vec::new() }
}

fn when(name: &str, comparison: Comparison, value: u64, action: A) -> Rule {
    Rule { conditions: vec![vec![Condition { argument: 0, comparison, value }]], ..always(&[name], action) }
}

fn profile(default: A, architectures: &[Architecture], rules: Vec<Rule>) -> Profile {
    Profile { default, architectures: architectures.to_vec(), flags: 0, rules }
}

fn number(architecture: Architecture, name: &str) -> u32 {
    let offset = if architecture == Architecture::X32 { X32_BIT } else { 0 };
    offset + architecture.calls().into_iter().find(|(_, have)| *have == name).unwrap().0
}

fn call(architecture: Architecture, name: &str, first: u64) -> Call {
    let arguments = [first, 0, 0, 0, 0, 0];
    Call { token: architecture.token(), number: number(architecture, name), arguments }
}

use Architecture::{X32, X86, X86_64};
use Comparison::*;

#[test]
fn a_call_is_answered_by_its_rule_and_another_by_the_default() {
    let rules = vec![always(&["read", "execve", "no_such_call"], ALLOW), always(&["clone3"], A::ENOSYS)];
    let program = compile(&profile(EPERM, &[X86_64, X86, X32], rules)).unwrap();
    for architecture in [X86_64, X86, X32] {
        for (name, expected) in [("read", ALLOW), ("execve", ALLOW), ("clone3", A::ENOSYS), ("write", EPERM)]
        {
            assert_eq!(run(&program, &call(architecture, name, 0)), expected, "{name} on {architecture:?}");
        }
    }
}

#[test]
fn programs_of_an_architecture_that_is_not_named_are_killed() {
    let program = compile(&profile(ALLOW, &[X86_64], vec![])).unwrap();
    for architecture in [X86, X32, Architecture::Aarch64] {
        assert_eq!(run(&program, &call(architecture, "read", 0)), A::KILL_PROCESS, "{architecture:?}");
    }
    assert_eq!(run(&program, &call(X86_64, "read", 0)), ALLOW);
    let passed_over = Call { number: NO_CALL, ..call(X86_64, "read", 0) };
    assert_eq!(run(&program, &passed_over), ALLOW, "a tracer may have a call passed over");
}

#[test]
fn a_call_that_came_after_the_profile_is_absent_rather_than_forbidden() {
    let rules = || vec![always(&["read", "close_range"], ALLOW)];
    let known = number(X86_64, "close_range");
    let at = |default, number| {
        let program = compile(&profile(default, &[X86_64, X32], rules())).unwrap();
        run(&program, &Call { number, ..call(X86_64, "read", 0) })
    };
    assert_eq!((at(EPERM, known), at(EPERM, known - 1), at(EPERM, known + 1)), (ALLOW, EPERM, A::ENOSYS));
    assert_eq!(at(EPERM, X32_BIT - 1), A::ENOSYS);
    assert_eq!((at(EPERM, X32_BIT + known), at(EPERM, X32_BIT + known + 1)), (ALLOW, A::ENOSYS));
    for permissive in [ALLOW, LOG, A(0x7ff0_0001)] {
        assert_eq!(at(permissive, known + 1), permissive);
    }
    assert_eq!(at(A::KILL_PROCESS, known + 1), A::ENOSYS);
}

#[test]
fn the_private_calls_of_arm_are_reached_beyond_the_unknown_ones() {
    let rules = vec![always(&["read", "set_tls"], ALLOW)];
    let program = compile(&profile(EPERM, &[Architecture::Aarch64, Architecture::Arm], rules)).unwrap();
    assert_eq!(run(&program, &call(Architecture::Arm, "set_tls", 0)), ALLOW);
    assert_ne!(run(&program, &call(Architecture::Arm, "cacheflush", 0)), ALLOW);
    let unknown = Call { number: 900, ..call(Architecture::Arm, "read", 0) };
    assert_eq!(run(&program, &unknown), A::ENOSYS);
}

#[test]
fn every_comparison_holds_on_both_sides_of_each_edge() {
    let edges = [0, 1, 5, u64::from(u32::MAX), 1 << 32, (1 << 32) | 5, (5 << 32) | 1, u64::MAX - 1, u64::MAX];
    for value in edges {
        for comparison in
            [Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual, MaskedEqual(0xf0000000f)]
        {
            let value = if let MaskedEqual(mask) = comparison { value & mask } else { value };
            let rule = when("personality", comparison, value, EPERM);
            let condition = rule.conditions[0][0];
            let program = compile(&profile(ALLOW, &[X86_64, X86], vec![rule])).unwrap();
            for argument in
                edges.into_iter().flat_map(|edge| [edge.wrapping_sub(1), edge, edge.wrapping_add(1)])
            {
                let expected = |wide| if holds(&condition, argument, wide) { EPERM } else { ALLOW };
                let what = format!("{argument:#x} {comparison:?} {value:#x}");
                assert_eq!(run(&program, &call(X86_64, "personality", argument)), expected(true), "{what}");
                assert_eq!(
                    run(&program, &call(X86, "personality", argument)),
                    expected(false),
                    "{what} on x86"
                );
            }
        }
    }
}

#[test]
fn a_rule_without_conditions_counts_before_others_and_the_first_that_holds_before_later_ones() {
    let answer = |rules, argument| {
        run(&compile(&profile(ALLOW, &[X86_64], rules)).unwrap(), &call(X86_64, "socket", argument))
    };
    let always = || always(&["socket"], EPERM);
    let (equal, greater) =
        (|| when("socket", Equal, 40, LOG), || when("socket", Greater, 5, A::KILL_PROCESS));
    assert_eq!(answer(vec![equal(), always()], 40), EPERM);
    assert_eq!(answer(vec![always(), equal()], 40), EPERM);
    assert_eq!(answer(vec![equal(), greater()], 40), LOG);
    assert_eq!(answer(vec![greater(), equal()], 40), A::KILL_PROCESS);
    assert_eq!(answer(vec![greater(), equal()], 5), ALLOW);
    let same_as_default = Rule { action: ALLOW, ..always() };
    assert_eq!(answer(vec![same_as_default, equal()], 40), LOG);
}

#[test]
fn what_goes_through_one_call_on_x86_is_filtered_by_its_own_name() {
    let rules = vec![always(&["socket", "shmat"], EPERM), when("bind", Equal, 3, EPERM)];
    let program = compile(&profile(ALLOW, &[X86_64, X86], rules)).unwrap();
    for (name, first, expected) in [
        ("socketcall", 1, EPERM),
        ("socketcall", 2, ALLOW),
        ("ipc", 21, EPERM),
        ("ipc", 0x1_0015, EPERM),
        ("ipc", 22, ALLOW),
        ("socket", 0, EPERM),
    ] {
        assert_eq!(run(&program, &call(X86, name, first)), expected, "{name} {first}");
    }
    let all = vec![always(&["socketcall"], ALLOW), always(&["socket"], A::KILL_PROCESS)];
    let program = compile(&profile(EPERM, &[X86_64, X86], all)).unwrap();
    assert_eq!(run(&program, &call(X86, "socketcall", 1)), ALLOW);
}

#[test]
fn a_program_that_the_kernel_would_not_take_is_refused() {
    let rules = (0..2000).map(|value| when("socket", Equal, value, EPERM)).collect();
    let Err(Error::TooLarge(size)) = compile(&profile(ALLOW, &[X86_64], rules)) else { panic!("was taken") };
    assert!(size > MAX_INSTRUCTIONS);
}

/// A xorshift generator with a fixed sequence, so that a failure can be reproduced.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn value(&mut self) -> u64 {
        let value = self.next();
        self.pick(&[value % 4, 0, 5, 40, u64::MAX, 1 << 32, (1 << 32) | 5, value])
    }

    fn condition(&mut self) -> Condition {
        let mask = self.value();
        let comparison =
            self.pick(&[Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual, MaskedEqual(mask)]);
        let value = self.value();
        let value = if let MaskedEqual(mask) = comparison { value & mask } else { value };
        Condition { argument: self.below(6) as u32, comparison, value }
    }

    fn rule(&mut self, calls: &[(u32, &str)]) -> Rule {
        let names: Vec<_> = (0..=self.below(10)).map(|_| self.pick(calls).1).collect();
        let mut rule = always(&names, self.pick(&[ALLOW, EPERM, LOG, A::KILL_PROCESS, A::ENOSYS]));
        for _ in 0..self.below(3) {
            let mut set: Vec<_> = (0..=self.below(3)).map(|_| self.condition()).collect();
            set.dedup_by_key(|condition| condition.argument);
            rule.conditions.push(set);
        }
        rule
    }
}

#[test]
fn random_profiles_are_answered_as_they_read() {
    let mut random = Random(0x5ecc_0114);
    let (wide, narrow) = (X86_64.calls(), X86.calls());
    for _ in 0..300 {
        let rules = (0..random.below(12)).map(|_| random.rule(&wide)).collect();
        let default = random.pick(&[ALLOW, EPERM, LOG]);
        let profile = profile(default, &[X86_64, X86], rules);
        let program = compile(&profile).unwrap();
        let known = |name: &str| profile.rules.iter().any(|rule| rule.names.iter().any(|n| n == name));
        for _ in 0..300 {
            let architecture = random.pick(&[X86_64, X86]);
            let calls = if architecture == X86 { &narrow } else { &wide };
            let (number, name) = random.pick(calls);
            let arguments = [(); 6].map(|()| random.value());
            let beyond = !calls.iter().any(|(later, name)| *later >= number && known(name));
            let any = calls.iter().any(|(_, name)| known(name));
            let expected = match beyond && any && !default.is_permissive() {
                true => A::ENOSYS,
                false => expected(&profile, architecture, name, &arguments),
            };
            let call = Call { token: architecture.token(), number, arguments };
            assert_eq!(
                run(&program, &call),
                expected,
                "{name} {arguments:x?} on {architecture:?} of {profile:?}"
            );
        }
    }
}
