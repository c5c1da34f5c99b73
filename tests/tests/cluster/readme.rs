//! Every command of the README runs as written.
//!
//! Each section is one shell: its `sh` blocks run in order, in a directory that looks like a fresh
//! checkout but shares this one's build. A `text` block right behind an `sh` block is exactly that
//! block's output. A comment above a block says what the text tells the reader:
//!
//! - `<!-- test: background, ready at HOST:PORT ... -->`: runs in a shell of its own until the
//!   section ends. The next block begins when these status addresses are ready.
//! - `<!-- test: not run, REASON -->`.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::support::binary::rangedb;
use crate::support::http;
use crate::support::process::without_settings;
use crate::support::wait::{check, until};

/// Maximum time of a section, which may build this crate's workspace anew and starts some nodes.
const SECTION_MAX: Duration = Duration::from_secs(300);

/// Printed between blocks, to tell their outputs apart.
const END_OF_BLOCK: &str = "---- end of a block of the README";

#[derive(Debug, PartialEq)]
struct Block {
    /// Heading of the block's section.
    heading: String,
    mode: Mode,
    commands: String,
    output: Option<String>,
}

#[derive(Debug, PartialEq)]
enum Mode {
    Shell,
    Background { status_addresses: Vec<String> },
    NotRun,
}

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the checkout")
}

/// Returns the `sh` blocks of a document.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut heading, mut before, mut follows_block) = (String::new(), "", false);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let body: String = body.iter().map(|line| format!("{line}\n")).collect();
            match (language, blocks.last_mut()) {
                ("sh", _) => {
                    let (heading, mode) = (heading.clone(), mode(before));
                    blocks.push(Block { heading, mode, commands: body, output: None });
                }
                ("text", Some(block)) if follows_block => block.output = Some(body),
                (other, _) => panic!("a block of {other:?} that nobody checks, in {heading}"),
            }
            follows_block = language == "sh";
        } else {
            if let Some(text) = line.strip_prefix("## ") {
                heading = text.to_owned();
            }
            follows_block = false;
        }
        before = line;
    }
    blocks
}

fn mode(line_above: &str) -> Mode {
    let Some(comment) = line_above.strip_prefix("<!-- test: ") else { return Mode::Shell };
    let comment = comment.strip_suffix(" -->").expect("a comment of one line");
    if let Some(addresses) = comment.strip_prefix("background, ready at ") {
        let status_addresses = addresses.split(' ').map(str::to_owned).collect();
        return Mode::Background { status_addresses };
    }
    assert!(comment.starts_with("not run, "), "what does {comment:?} mean?");
    Mode::NotRun
}

/// Makes a directory look like a fresh checkout, with the build of this one.
fn like_a_checkout(directory: &Path) {
    for entry in std::fs::read_dir(checkout()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        // Files that running RangeDB leaves behind, and a target directory that may not be this
        // build's.
        let leftover = ["target", "data", "cluster", ".git"].iter().any(|other| name == *other);
        if !leftover {
            symlink(entry.path(), directory.join(name)).unwrap();
        }
    }
    let target = rangedb();
    let target = target.parent().and_then(Path::parent).expect("target/release/rangedb");
    symlink(target, directory.join("target")).unwrap();
}

/// Returns the path of the file for a shell's standard error.
fn errors_of(output: &Path) -> PathBuf {
    output.with_added_extension("errors")
}

/// A shell and all that it started; ended together.
struct Shell(Child);

impl Shell {
    fn start(directory: &Path, commands: &str, output: &Path) -> Shell {
        let mut command = Command::new("bash");
        without_settings(&mut command);
        // Cargo's variables for its tests must not reach the cargo that a command starts.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let of_a_build = name.starts_with("CARGO") && name != "CARGO_HOME"
                || ["LD_LIBRARY_PATH", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"].contains(&&*name);
            if of_a_build {
                command.env_remove(name);
            }
        }
        command.args(["-euo", "pipefail", "-c", commands]).current_dir(directory);
        // Leaves sessions and histories of the user who runs the tests alone.
        command.env("XDG_STATE_HOME", directory.join("state-of-the-user"));
        let errors = File::create(errors_of(output)).unwrap();
        command.stdin(Stdio::null()).stdout(File::create(output).unwrap()).stderr(errors);
        Shell(command.process_group(0).spawn().expect("bash can be run"))
    }

    fn signal(&self, signal: Signal) {
        // The group may have ended by itself.
        let _ = kill_process_group(Pid::from_child(&self.0), signal);
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.0.wait();
    }
}

async fn ended(what: &str, shell: &mut Shell) -> std::process::ExitStatus {
    until(what, SECTION_MAX, async || shell.0.try_wait().unwrap().ok_or("it runs")).await
}

async fn run_section(directory: &Path, heading: &str, blocks: &[Block]) {
    let output = directory.join("output-of-the-section");
    let mut background = Vec::new();
    let mut script = String::new();
    let mut in_shell = Vec::new();
    for block in blocks {
        match &block.mode {
            Mode::NotRun => {}
            Mode::Shell => {
                script.push_str(&format!("{}\necho '{END_OF_BLOCK}'\n", block.commands));
                in_shell.push(block);
            }
            Mode::Background { status_addresses } => {
                assert!(script.is_empty(), "{heading}: background comes first");
                assert!(block.output.is_none(), "{heading}: no output of what goes on");
                for address in status_addresses {
                    // A server that answers there now would be mistaken for the section's own.
                    let taken = http::get(address, "/readyz").await.is_ok();
                    assert!(!taken, "{heading} needs {address}, which somebody uses");
                }
                let quiet = directory.join("output-of-the-background");
                background.push(Shell::start(directory, &block.commands, &quiet));
                for address in status_addresses {
                    until(&format!("{heading}: {address} is ready"), SECTION_MAX, async || {
                        let answer = http::get(address, "/readyz").await?;
                        check(answer.code == 200, answer.body)
                    })
                    .await;
                }
            }
        }
    }
    let mut shell = Shell::start(directory, &script, &output);
    let status = ended(&format!("the commands of {heading}"), &mut shell).await;
    let printed = std::fs::read_to_string(&output).unwrap();
    let errors = std::fs::read_to_string(errors_of(&output)).unwrap();
    assert!(status.success(), "{heading}: {status} after:\n{printed}\nwith:\n{errors}");
    let outputs: Vec<&str> = printed.split(&format!("{END_OF_BLOCK}\n")).collect();
    for (block, printed) in in_shell.iter().zip(outputs) {
        if let Some(wanted) = &block.output {
            assert_eq!(printed, wanted, "{heading}: the output of\n{}", block.commands);
        }
    }
    for shell in &mut background {
        shell.signal(Signal::TERM);
        ended(&format!("what {heading} left running"), shell).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_readme_runs_as_written() {
    let text = std::fs::read_to_string(checkout().join("README.md")).unwrap();
    let blocks = blocks(&text);
    let not_run = blocks.iter().filter(|block| block.mode == Mode::NotRun);
    let not_run: Vec<&str> = not_run.map(|block| block.commands.trim()).collect();
    assert_eq!(not_run, ["make test"], "there is a reason for no other one");
    for section in blocks.chunk_by(|one, next| one.heading == next.heading) {
        let directory = tempfile::tempdir().unwrap();
        let path: PathBuf = directory.path().to_owned();
        like_a_checkout(&path);
        run_section(&path, &section[0].heading, section).await;
    }
}

#[test]
fn blocks_are_found_with_what_is_said_of_them() {
    let text = "## A\n<!-- test: background, ready at a:1 b:2 -->\n```sh\nserve\n```\n\n```sh\nask\n```\n\
                ```text\nyes\n```\n## B\n<!-- test: not run, why -->\n```sh\nrest\n```\n";
    let block = |heading: &str, mode, commands: &str, output: Option<&str>| Block {
        heading: heading.to_owned(),
        mode,
        commands: commands.to_owned(),
        output: output.map(str::to_owned),
    };
    let status_addresses = vec!["a:1".to_owned(), "b:2".to_owned()];
    assert_eq!(
        blocks(text),
        [
            block("A", Mode::Background { status_addresses }, "serve\n", None),
            block("A", Mode::Shell, "ask\n", Some("yes\n")),
            block("B", Mode::NotRun, "rest\n", None),
        ]
    );
}
