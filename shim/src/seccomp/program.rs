//! Compilation of a profile to classic BPF, seccomp(2).
//!
//! ```text
//! architecture --> number, by binary search among ranges that are answered alike --> arguments, where a rule asks for them
//! ```
//! Of the rules for one call, one without conditions wins, otherwise the first whose conditions hold. Rules with the
//! default action are ignored. Runtimes that use libseccomp do the same, except that they order conditions differently.

mod interpreter;

pub(super) use interpreter::{Call, run};

use super::Error;
use super::architecture::{Architecture, X32_BIT};
use super::profile::{Action, Comparison, Condition, Profile, Rule};
use crate::sys::seccomp::Instruction;
use std::collections::HashMap;

/// `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;
/// A tracer sets this number to have a call skipped.
const NO_CALL: u32 = u32::MAX;

/// First of the numbers that are private to one architecture and say nothing about newer calls.
const PRIVATE: u32 = 0xf0000;

// Opcodes of classic BPF, which has one register.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Compiles the program. Calls of architectures that the profile does not list kill the process.
pub(super) fn compile(profile: &Profile) -> Result<Vec<Instruction>, Error> {
    let rules = Rules::new(profile);
    let mut program = vec![answer(Action::KILL_PROCESS)];
    // From last to first: each test is put before those already there.
    for architecture in profile.architectures.iter().rev().filter(|one| **one != Architecture::X32) {
        let own = numbers(&rules, *architecture, profile);
        program = [skip_if(IF_EQUAL, architecture.token(), program.len()), program, own].concat();
    }
    program.insert(0, load(ARCHITECTURE));
    match program.len() {
        fits if fits <= MAX_INSTRUCTIONS => Ok(program),
        long => Err(Error::TooLarge(long)),
    }
}

/// Code for all system calls of one architecture.
fn numbers(rules: &Rules<'_>, architecture: Architecture, profile: &Profile) -> Vec<Instruction> {
    let own = search(&rules.ranges(architecture, 0));
    let own = match architecture {
        Architecture::X86_64 => {
            let x32 = if profile.architectures.contains(&Architecture::X32) {
                search(&rules.ranges(Architecture::X32, X32_BIT))
            } else {
                let killed = [skip_if(IF_EQUAL, NO_CALL, 1), vec![answer(Action::KILL_PROCESS)]].concat();
                [killed, vec![answer(profile.default)]].concat()
            };
            [skip_if(IF_NOT_LESS, X32_BIT, own.len()), own, x32].concat()
        }
        _ => own,
    };
    [vec![load(NUMBER)], own].concat()
}

/// The system call numbers from `from` to the next range, with the same code.
struct Range {
    from: u32,
    code: Vec<Instruction>,
}

/// Binary search. Ranges are in ascending order, and the first begins below every number.
fn search(ranges: &[Range]) -> Vec<Instruction> {
    match ranges {
        [] => Vec::new(),
        [one] => one.code.clone(),
        several => {
            let (low, high) = several.split_at(several.len() / 2);
            let (below, above) = (search(low), search(high));
            [skip_if(IF_NOT_LESS, high[0].from, below.len()), below, above].concat()
        }
    }
}

/// The rules of a profile by system call name.
struct Rules<'a> {
    default: Action,
    by_name: HashMap<&'a str, Vec<Case<'a>>>,
}

/// An action and its conditions.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Case<'a> {
    /// Alternative sets of conditions; empty means always.
    conditions: &'a [Vec<Condition>],
    action: Action,
    /// First argument, for calls multiplexed by one number.
    selector: Option<u32>,
}

impl<'a> Rules<'a> {
    fn new(profile: &'a Profile) -> Self {
        let mut by_name: HashMap<&str, Vec<Case<'_>>> = HashMap::new();
        for rule in &profile.rules {
            for name in &rule.names {
                let cases = by_name.entry(name).or_default();
                if rule.action != profile.default {
                    add(cases, rule);
                }
            }
        }
        Self { default: profile.default, by_name }
    }

    /// Code for all system call numbers, each increased by `offset`.
    ///
    /// Numbers beyond the last call that the profile knows are calls newer than the profile. They get ENOSYS, for which
    /// programs have fallbacks, unlike for EPERM.
    fn ranges(&self, architecture: Architecture, offset: u32) -> Vec<Range> {
        let mut answers = Answers {
            default: self.default,
            offset,
            wide: architecture.is_wide(),
            last: Vec::new(),
            ranges: Vec::new(),
        };
        let (mut next, mut beyond) = (0, None);
        for (number, name) in architecture.calls() {
            if number > next {
                answers.add(next, Vec::new());
            }
            next = number + 1;
            answers.add(number, self.cases(architecture, name));
            if number < PRIVATE && self.by_name.contains_key(name) {
                beyond = Some(next);
            }
        }
        answers.add(next, Vec::new());
        if let Some(beyond) = beyond.filter(|_| !self.default.is_permissive()) {
            answers.end(beyond);
        }
        answers.ranges
    }

    fn cases(&self, architecture: Architecture, name: &str) -> Vec<Case<'a>> {
        let mut cases = self.by_name.get(name).cloned().unwrap_or_default();
        if cases.last().is_some_and(Case::is_unconditional) {
            return cases;
        }
        // The filter cannot see the arguments of multiplexed calls: only rules without conditions apply.
        for (selector, behind) in architecture.behind(name) {
            let always = self
                .by_name
                .get(behind)
                .and_then(|cases| cases.last())
                .filter(|case| case.is_unconditional());
            cases.extend(always.map(|case| Case { selector: Some(*selector), ..*case }));
        }
        cases
    }
}

/// Adds a case. An unconditional one replaces those before it and excludes later ones.
fn add<'a>(cases: &mut Vec<Case<'a>>, rule: &'a Rule) {
    let case = Case { conditions: &rule.conditions, action: rule.action, selector: None };
    if cases.last().is_some_and(Case::is_unconditional) {
        return;
    }
    if case.is_unconditional() {
        cases.clear();
    }
    cases.push(case);
}

impl Case<'_> {
    fn is_unconditional(&self) -> bool {
        self.conditions.is_empty() && self.selector.is_none()
    }

    fn code(&self, wide: bool) -> Vec<Instruction> {
        if self.is_unconditional() {
            return vec![answer(self.action)];
        }
        let selector = self.selector.map(|value| {
            vec![Condition { argument: 0, comparison: Comparison::MaskedEqual(0xffff), value: value.into() }]
        });
        let sets = self.conditions.iter().chain(&selector);
        sets.flat_map(|conditions| guarded(conditions, self.action, wide)).collect()
    }
}

/// Builds ranges, merging neighbours with the same code.
struct Answers<'a> {
    default: Action,
    offset: u32,
    wide: bool,
    last: Vec<Case<'a>>,
    ranges: Vec<Range>,
}

impl<'a> Answers<'a> {
    fn add(&mut self, number: u32, cases: Vec<Case<'a>>) {
        if !self.ranges.is_empty() && self.last == cases {
            return;
        }
        let mut code: Vec<_> = cases.iter().flat_map(|case| case.code(self.wide)).collect();
        if !cases.last().is_some_and(Case::is_unconditional) {
            code.push(answer(self.default));
        }
        self.ranges.push(Range { from: self.offset + number, code });
        self.last = cases;
    }

    /// Replaces the ranges from this number up to the private ones by ENOSYS.
    fn end(&mut self, number: u32) {
        let place = |number| self.ranges.partition_point(|range| range.from < number);
        let from = self.offset + number;
        let unknown = place(from)..place(self.offset + PRIVATE);
        self.ranges.splice(unknown, [Range { from, code: vec![answer(Action::ENOSYS)] }]);
    }
}

/// Returns the action if all conditions hold; otherwise continues after this code.
fn guarded(conditions: &[Condition], action: Action, wide: bool) -> Vec<Instruction> {
    let mut code = vec![answer(action)];
    for condition in conditions.iter().rev() {
        code = [check(condition, wide, code.len() as u8), code].concat();
    }
    code
}

/// Continues after this code if the condition holds; otherwise skips the next `rest` instructions.
fn check(condition: &Condition, wide: bool, rest: u8) -> Vec<Instruction> {
    use Comparison::*;
    let place = ARGUMENTS + 8 * condition.argument;
    let (value, upper) = (condition.value as u32, (condition.value >> 32) as u32);
    if let MaskedEqual(mask) = condition.comparison {
        return masked(condition, mask, wide, rest);
    }
    let mut code = match condition.comparison {
        _ if !wide => Vec::new(),
        Equal => vec![load(place + 4), jump(IF_EQUAL, upper, 0, rest + 2)],
        NotEqual => vec![load(place + 4), jump(IF_EQUAL, upper, 0, 2)],
        Greater | GreaterOrEqual => {
            vec![load(place + 4), jump(IF_GREATER, upper, 3, 0), jump(IF_EQUAL, upper, 0, rest + 2)]
        }
        _ => vec![load(place + 4), jump(IF_NOT_LESS, upper, 0, 3), jump(IF_EQUAL, upper, 0, rest + 2)],
    };
    code.push(load(place));
    code.push(match condition.comparison {
        NotEqual => jump(IF_EQUAL, value, rest, 0),
        Greater => jump(IF_GREATER, value, 0, rest),
        GreaterOrEqual => jump(IF_NOT_LESS, value, 0, rest),
        Less => jump(IF_NOT_LESS, value, rest, 0),
        LessOrEqual => jump(IF_GREATER, value, rest, 0),
        Equal | MaskedEqual(_) => jump(IF_EQUAL, value, 0, rest),
    });
    code
}

fn masked(condition: &Condition, mask: u64, wide: bool, rest: u8) -> Vec<Instruction> {
    let place = ARGUMENTS + 8 * condition.argument;
    let half = |place, mask: u64, value: u64, rest| {
        [load(place), jump(AND, mask as u32, 0, 0), jump(IF_EQUAL, value as u32, 0, rest)]
    };
    let lower = half(place, mask, condition.value, rest);
    match wide {
        true => [half(place + 4, mask >> 32, condition.value >> 32, rest + 3), lower].concat(),
        false => lower.to_vec(),
    }
}

/// Skips that many instructions if the comparison of the register with the value holds.
fn skip_if(test: u16, value: u32, skipped: usize) -> Vec<Instruction> {
    match u8::try_from(skipped) {
        Ok(near) => vec![jump(test, value, near, 0)],
        // Conditional jumps have 8-bit offsets.
        Err(_) => vec![jump(test, value, 0, 1), jump(JUMP, skipped as u32, 0, 0)],
    }
}

fn load(place: u32) -> Instruction {
    jump(LOAD, place, 0, 0)
}

fn answer(action: Action) -> Instruction {
    jump(RETURN, action.0, 0, 0)
}

fn jump(operation: u16, value: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { operation, if_true, if_false, value }
}

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
#[cfg(any(test, feature = "fuzz"))]
mod reference;
#[cfg(test)]
mod tests;
