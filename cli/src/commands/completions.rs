//! `rangedb completions SHELL`: a script that teaches a shell to complete this command line.

use std::io::Write;

use clap::Args;
use clap_complete::Shell;

use crate::args;
use crate::failure::Failure;

/// Print a script that completes commands and options in a shell
#[derive(Debug, Args)]
pub struct Completions {
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        // Generated in memory first: the generator panics if its writer fails, as a pipe to `head`
        // does.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut args::parser(), "rangedb", &mut script);
        Ok(out.write_all(&script)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn scripts_for_every_shell_know_the_commands() {
        for &shell in Shell::value_variants() {
            let mut out = Vec::new();
            Completions { shell }.run(&mut out).unwrap();
            let script = String::from_utf8(out).unwrap();
            for word in ["range", "keys-only", "partition", "completions"] {
                assert!(script.contains(word), "{word} is not in the script for {shell}");
            }
        }
    }
}
