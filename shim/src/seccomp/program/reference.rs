//! Reference for tests and the fuzz target: what a program does, and what it should do.
#![allow(clippy::panic)]

use super::*;
use Comparison::*;

/// Runs the program. Panics where the kernel would not accept it.
pub(super) fn run(program: &[Instruction], call: &Call) -> Action {
    super::run(program, call).unwrap_or_else(|| panic!("the kernel does not take this program"))
}

/// Whether a condition holds.
pub(super) fn holds(condition: &Condition, argument: u64, wide: bool) -> bool {
    let cut = |number: u64| if wide { number } else { number & u64::from(u32::MAX) };
    let (argument, value) = (cut(argument), cut(condition.value));
    match condition.comparison {
        Equal => argument == value,
        NotEqual => argument != value,
        Less => argument < value,
        LessOrEqual => argument <= value,
        Greater => argument > value,
        GreaterOrEqual => argument >= value,
        MaskedEqual(mask) => argument & cut(mask) == value,
    }
}

/// The profile's answer to a call that it knows, computed without the program's shortcuts.
pub(super) fn expected(
    profile: &Profile,
    architecture: Architecture,
    name: &str,
    arguments: &[u64; 6],
) -> Action {
    let fits = |rule: &&Rule| {
        let holds = |c: &Condition| holds(c, arguments[c.argument as usize], architecture.is_wide());
        rule.conditions.iter().any(|set| set.iter().all(holds))
    };
    let own = always(profile, name).or_else(|| about(profile, name).find(fits));
    let meant =
        architecture.behind(name).iter().find(|(number, _)| u64::from(*number) == arguments[0] & 0xffff);
    let rule = own.or_else(|| always(profile, meant?.1));
    rule.map_or(profile.default, |rule| rule.action)
}

/// The rules for a call, except those with the default action.
fn about<'a>(profile: &'a Profile, name: &str) -> impl Iterator<Item = &'a Rule> {
    let differs = |rule: &&Rule| rule.action != profile.default;
    profile.rules.iter().filter(differs).filter(move |rule| rule.names.iter().any(|n| n == name))
}

fn always<'a>(profile: &'a Profile, name: &str) -> Option<&'a Rule> {
    about(profile, name).find(|rule| rule.conditions.is_empty())
}
