//! Interpreter of BPF programs.

use super::*;

/// The machine's own architecture.
const NATIVE: Architecture =
    if cfg!(target_arch = "aarch64") { Architecture::Aarch64 } else { Architecture::X86_64 };

/// A system call as a filter sees it, `struct seccomp_data`.
#[derive(Debug, Clone, Copy)]
pub(in crate::seccomp) struct Call {
    pub(super) token: u32,
    pub(super) number: u32,
    pub(super) arguments: [u64; 6],
}

impl Call {
    /// A call of a native program; missing arguments are 0.
    pub(in crate::seccomp) fn native(number: u32, given: &[u64]) -> Self {
        let argument = |index| given.get(index).copied().unwrap_or_default();
        Self { token: NATIVE.token(), number, arguments: std::array::from_fn(argument) }
    }

    fn word(&self, place: u32) -> Option<u32> {
        Some(match place {
            NUMBER => self.number,
            ARCHITECTURE => self.token,
            place => {
                let argument = self.arguments.get(place.checked_sub(ARGUMENTS)? as usize / 8)?;
                (if place.is_multiple_of(8) { *argument } else { argument >> 32 }) as u32
            }
        })
    }
}

/// Runs the program. `None` where the kernel would not accept it.
pub(in crate::seccomp) fn run(program: &[Instruction], call: &Call) -> Option<Action> {
    let (mut at, mut register) = (0, 0);
    loop {
        let Instruction { operation, if_true, if_false, value } = *program.get(at)?;
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { if_true } else { if_false });
        match operation {
            LOAD => register = call.word(value)?,
            AND => register &= value,
            JUMP => at += value as usize,
            IF_EQUAL => branch(register == value),
            IF_GREATER => branch(register > value),
            IF_NOT_LESS => branch(register >= value),
            RETURN => return Some(Action(value)),
            _ => return None,
        }
    }
}
