//! Device rules for cgroup v2, which has no files for them but calls a BPF program, bpf(2).
//!
//! For each kind of access the last matching rule decides. So the program checks the rules from last to first and
//! clears the access bits that are allowed. Access without a matching rule is denied.
//!
//! ```text
//! asked = access; for each rule from the last:  does it match?  deny: any of asked? no.   allow: strike it off; none left? yes.
//! ```

use crate::spec::DeviceRule;
use crate::sys::bpf::{self, Instruction};
use std::io;
use std::os::fd::BorrowedFd;

const MAKE: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const ALL: u32 = MAKE | READ | WRITE;
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;

// Registers: the return value, the pointer to `struct bpf_cgroup_dev_ctx`, and values loaded from it.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const ASKED: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

// Operations on the lower halves of registers.
const LOAD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const SET: u8 = 0xb4;
const COPY: u8 = 0xbc;
const IF_EQUAL: u8 = 0x16;
const IF_NOT_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

/// A parsed rule; `None` matches everything.
#[derive(Debug)]
struct Rule {
    allow: bool,
    kind: Option<u32>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

/// Attaches a program with these rules to the cgroup, given by its directory, replacing the previous one atomically.
pub(super) fn enforce(group: BorrowedFd<'_>, rules: &[DeviceRule]) -> io::Result<()> {
    let program = bpf::load_device_program(&compile(rules)?)?;
    let before = bpf::device_program_of(group)?;
    bpf::attach_device_program(group, &program, before.as_ref())
}

/// Compiles the rules.
fn compile(rules: &[DeviceRule]) -> io::Result<Vec<Instruction>> {
    let mut program = vec![
        act(LOAD, KIND, CONTEXT, 0, 0),
        act(COPY, ASKED, KIND, 0, 0),
        act(AND, KIND, 0, 0, 0xffff),
        act(SHIFT_RIGHT, ASKED, 0, 0, 16),
        act(LOAD, MAJOR, CONTEXT, 4, 0),
        act(LOAD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let rule = Rule::parse(rule)?;
        program.extend(rule.code());
        if rule.is_about_everything() {
            return Ok(program);
        }
    }
    program.extend(answer(false));
    Ok(program)
}

impl Rule {
    fn parse(rule: &DeviceRule) -> io::Result<Self> {
        let number = |number: Option<i64>| match number {
            Some(number) if number >= 0 => u32::try_from(number).map(Some).map_err(|_| unknown(rule)),
            _ => Ok(None),
        };
        let kind = match rule.kind.as_str() {
            "" | "a" => None,
            "b" => Some(BLOCK),
            "c" | "u" => Some(CHARACTER),
            _ => return Err(unknown(rule)),
        };
        Ok(Self {
            allow: rule.allow,
            kind,
            major: number(rule.major)?,
            minor: number(rule.minor)?,
            access: access(rule)?,
        })
    }

    fn is_about_everything(&self) -> bool {
        self.access == ALL && self.kind.is_none() && self.major.is_none() && self.minor.is_none()
    }

    fn code(&self) -> Vec<Instruction> {
        let mut code = self.decision();
        for (register, wanted) in [(MINOR, self.minor), (MAJOR, self.major), (KIND, self.kind)] {
            if let Some(wanted) = wanted {
                code.insert(0, act(IF_NOT_EQUAL, register, 0, code.len() as i16, wanted));
            }
        }
        code
    }

    /// Instructions for a device that the rule matches.
    fn decision(&self) -> Vec<Instruction> {
        let decided = answer(self.allow);
        match (self.access, self.allow) {
            (ALL, _) => decided.to_vec(),
            (access, true) => [
                &[act(AND, ASKED, 0, 0, ALL & !access), act(IF_NOT_EQUAL, ASKED, 0, decided.len() as i16, 0)],
                &decided[..],
            ]
            .concat(),
            (access, false) => [
                &[
                    act(COPY, SCRATCH, ASKED, 0, 0),
                    act(AND, SCRATCH, 0, 0, access),
                    act(IF_EQUAL, SCRATCH, 0, decided.len() as i16, 0),
                ],
                &decided[..],
            ]
            .concat(),
        }
    }
}

fn access(rule: &DeviceRule) -> io::Result<u32> {
    if rule.access.is_empty() {
        return Ok(ALL);
    }
    rule.access.bytes().try_fold(0, |access, letter| match letter {
        b'r' => Ok(access | READ),
        b'w' => Ok(access | WRITE),
        b'm' => Ok(access | MAKE),
        _ => Err(unknown(rule)),
    })
}

fn unknown(rule: &DeviceRule) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{rule:?}"))
}

fn answer(allow: bool) -> [Instruction; 2] {
    [act(SET, RESULT, 0, 0, allow.into()), act(EXIT, 0, 0, 0, 0)]
}

fn act(operation: u8, to: u8, from: u8, offset: i16, value: u32) -> Instruction {
    Instruction { operation, registers: from << 4 | to, offset, value }
}

#[cfg(test)]
mod tests;
