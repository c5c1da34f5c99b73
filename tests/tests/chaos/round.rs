//! A round of chaos: a new cluster, clients, faults for some time, recovery, and the verdict.
//!
//! A seed draws the cluster's configuration, the faults and their times, and the operations of
//! clients. The same seed does not give the same run twice, because processes, disks and the
//! network of the machine have a part in it.

use std::io::Write as _;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::faults::{Episode, Kind};
use super::load::{Load, Verdict};
use super::world::World;

/// Log of a round's events, for people. Printed if the round fails.
struct Story {
    seed: u64,
    nodes: usize,
    began: Instant,
    lines: Vec<String>,
}

impl Story {
    fn tell(&mut self, what: impl std::fmt::Display) {
        self.lines.push(format!("{:8.3} s  {what}", self.began.elapsed().as_secs_f64()));
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Story { seed, nodes, lines, .. } = self;
            let again = format!("make chaos SEED={seed} NODES={nodes}");
            say(&format!("---- round of seed {seed}: {again}\n{}", lines.join("\n")));
        }
    }
}

/// Result of a clean round.
pub struct Round {
    pub kinds: Vec<Kind>,
    pub episodes: usize,
    pub verdict: Verdict,
}

/// Writes to standard error, which is shown even while tests run.
pub fn say(text: &str) {
    // An error here cannot be reported anywhere.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Runs a round with faults for at least this long.
///
/// # Panics
///
/// If the cluster breaks a guarantee or does not recover.
pub async fn run(seed: u64, nodes: usize, faults_for: Duration) -> Round {
    let mut rng = Rng::with_seed(seed);
    let began = Instant::now();
    let mut story = Story { seed, nodes, began, lines: Vec::new() };
    let kinds = Kind::draw(&mut rng);
    story.tell(format!("{nodes} nodes, {kinds:?}"));
    let mut world = World::start(nodes, &mut rng).await;
    story.tell("the cluster serves");
    let load = Load::start(|first| world.endpoints(first % nodes), &mut rng).await;
    load.progress().await;
    let mut episodes = 0;
    let until = Instant::now() + faults_for;
    while Instant::now() < until {
        let episode = Episode::draw(&mut rng, &kinds, nodes);
        story.tell(&episode);
        episodes += 1;
        for fault in &episode.faults {
            fault.begin(&mut world).await;
        }
        lasting(episode.lasts).await;
        episode.faults.iter().for_each(|fault| fault.end(&mut world));
        lasting(episode.quiet).await;
        if let Some(node) = world.ended_by_itself() {
            let node = &world.cluster.nodes[node];
            panic!("{} ended by itself:\n{}", node.name, last_lines(&node.log_text()));
        }
    }
    world.heal();
    story.tell("everything is mended");
    world.whole().await;
    story.tell("the cluster is whole");
    load.progress().await;
    story.tell("every client gets on");
    let verdict = load.verdict(&world.endpoints(0)).await;
    story.tell("judged");
    Round { kinds, episodes, verdict }
}

/// Waits for the drawn time of a fault. The wait is for time and not for a condition, because no
/// condition ends a fault.
async fn lasting(duration: Duration) {
    tokio::time::sleep(duration).await;
}

fn last_lines(log: &str) -> String {
    const SHOWN: usize = 40;
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}
