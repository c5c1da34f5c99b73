//! Golden conversations with stores: `testscripts/`. The name of a script is the rule that it
//! shows.
//!
//! A line that begins with `> ` is a step; the indented lines behind it are the stores' reactions.
//! All other lines are prose. `UPDATE_GOLDEN=1 cargo test -p rangedb-raftstore --test scripts`
//! writes the reactions down: inspect the difference, and only commit what you understand.
//!
//! Nothing happens by itself. A step delivers a message, persists an append, streams a snapshot or
//! gives a fence; until then each waits. There is one range, r1. Nodes are n1, n2.., replicas p1,
//! p2..; at first pN is on nN. Clocks stand still except for ticks of 100 ms.
//!
//! ```text
//! > cluster nodes=4 [replicas=3] [leader=1] [log-keep=BYTES] [flush-log=BYTES] [no-lease]
//!       [tick-ms=A,B]              start over; with a leader, elect it and fence it at 100
//! > quiet STEP                     a step whose reactions are not shown
//! > stabilize                      persist and deliver until nothing is left to do
//! > deliver [LINK]                 one round of the messages in flight now, in order
//! > drop [LINK] · hold [LINK] · release        lose them · delay them · end the delay
//! > cut LINK · heal                from now on lose all messages · until healed
//! > persist N                      persist the log writes of node N, tell its store
//! > pause persist N · resume persist N         leave it out of `stabilize`
//! > pause apply N · resume apply N             an applier that is slow
//! > tick N [TIMES] [until campaign]
//! > elect N                        the others hear nothing for an election timeout, N campaigns
//! > advance-clock N MS
//! > crash N · restart N [tick-ms=MS]           with another tick from then on
//! > fence N TS [term=T]            the oracle's answer
//! > propose N [epoch=V] [cost=C] [freeing] put K=V [, put K=V ...]
//!                                  commands that arrive together
//! > read N [epoch=V] K latest|snapshot TS [confirm] [, ...]
//! > pause reads N · resume reads N             a process that stalls before it reads
//! > operate N [epoch=V.C] add-learner NODE | promote P | replace P by P | remove P | transfer P
//! > snapshot deliver|lose|repeat [unheard] [behind LINK]
//!                                  the oldest snapshot; `repeat`: delivered, and believed lost;
//!                                  unheard: handled together with the next event; behind: its
//!                                  end is handled in one pass with the messages on that link
//! > flush N [unheard]              finish the oldest flush of the state engine; unheard: its
//!                                  store handles it together with the next event
//! > disk N full|reserve|free · log N stalled|flows · unreachable N NODE
//! > elsewhere N M [behind-messages]            the control plane tells node N of the range as
//!                                  node M knows it; in one pass with the messages to N
//! > forge LINK [epoch=V] [level=L] put K=V     a leader's entry with an epoch or a feature level
//!                                  that no leader here would use
//! > skip-entry N INDEX             an operator declares the entry of a quarantine without effect
//! > status · members · waiting · data · tombstones · staged
//! ```
//!
//! A LINK is `1->2`, `1->` or `->2`. With `<->` it means both ways: `3<->` is all messages from and
//! to node 3. `x*600` is 600 times x.

mod support;

use std::fmt::Write;
use std::path::Path;

use support::Cluster;

#[test]
fn writes_go_as_written() {
    play_directory("writes");
}

#[test]
fn reads_go_as_written() {
    play_directory("reads");
}

#[test]
fn snapshots_and_restarts_go_as_written() {
    play_directory("recovery");
}

#[test]
fn membership_changes_go_as_written() {
    play_directory("membership");
}

fn play_directory(name: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts").join(name);
    let mut paths: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no scripts in {}", directory.display());
    for path in paths {
        let expected = std::fs::read_to_string(&path).unwrap();
        let actual = play(&expected);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, actual).unwrap();
        } else if actual != expected {
            let same = actual.lines().zip(expected.lines()).take_while(|(a, e)| a == e).count();
            let rest = |text: &str| text.lines().skip(same).take(8).collect::<Vec<_>>().join("\n");
            let (expected, actual) = (rest(&expected), rest(&actual));
            let place = format!("{}:{}", path.display(), same + 1);
            panic!("{place}\n--- expected\n{expected}\n--- actual\n{actual}");
        }
    }
}

/// Plays a script. Returns it with the reactions written behind its steps.
fn play(script: &str) -> String {
    let mut cluster = Cluster::default();
    let mut out = String::new();
    for line in script.lines().filter(|line| !line.starts_with("  ")) {
        writeln!(out, "{line}").unwrap();
        if let Some(step) = line.strip_prefix("> ") {
            for answer in cluster.carry_out(step) {
                writeln!(out, "  {answer}").unwrap();
            }
        }
    }
    out
}
