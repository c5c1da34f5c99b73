//! Clocks of the day that leap by days: timestamps do not follow, nothing is lost, and people are
//! told. libfaketime sets the clocks of the day; the monotonic clocks are the machine's.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rangedb_client::Timestamp;

use crate::support::cluster::Cluster;
use crate::support::wait::{SOON, check, until};

/// Leap of a clock, as libfaketime reads it.
const TWO_DAYS: &str = "+2d";

/// Paths at which Debian and others put the library.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// Maximum distance of timestamps from the time of day without a leap: a new oracle's bound, and a
/// slow machine.
const NEAR: Duration = Duration::from_secs(20);

/// Time after which the floor could have moved: longer than a new control plane leaves it in place.
const FLOOR_MOVES: Duration = Duration::from_secs(12);

/// Clocks that the test sets, one for each node, all of them right at first.
struct Clocks(Vec<PathBuf>);

impl Clocks {
    fn under(cluster: &mut Cluster) -> Clocks {
        let library = LIBRARIES.iter().find(|library| Path::new(library).exists());
        let library =
            library.expect("this test needs libfaketime: install the package of that name");
        let files: Vec<PathBuf> =
            (0..cluster.nodes.len()).map(|n| cluster.file(&format!("clock{n}"), "+0\n")).collect();
        for (node, file) in cluster.nodes.iter_mut().zip(&files) {
            node.through = vec![
                "env".to_owned(),
                format!("LD_PRELOAD={library}"),
                format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
                "FAKETIME_NO_CACHE=1".to_owned(),
                "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            ];
        }
        Clocks(files)
    }

    fn set(&self, place: usize, wrong_by: &str) {
        // Replaced as a whole: a node may read the file at any moment.
        let new = self.0[place].with_extension("new");
        std::fs::write(&new, format!("{wrong_by}\n")).unwrap();
        std::fs::rename(&new, &self.0[place]).unwrap();
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}

fn is_near(timestamp: Timestamp) -> Result<(), String> {
    let apart = Duration::from_millis(timestamp.millis()).abs_diff(now());
    check(apart < NEAR, format!("timestamps are {apart:?} from the time of day"))
}

async fn status_says(cluster: &Cluster, words: &str) {
    until(&format!("`cluster status` says {words:?}"), SOON, async || {
        let said = cluster.cli(["admin", "cluster", "status"]).await;
        check(said.out.contains(words), &said.out)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timestamps_do_not_follow_the_clock_of_one_node_that_leaps() {
    let mut cluster = Cluster::of(3).await;
    let clocks = Clocks::under(&mut cluster);
    let cluster = cluster.start().await;
    let client = cluster.client();
    client.put("/k", "old").await.unwrap();
    let before = client.timestamp().await.unwrap();
    is_near(before).unwrap();
    client.put("/k", "new").await.unwrap();
    status_says(&cluster, "agree").await;

    let leader = cluster.status().await.unwrap().control_leader_node_id;
    let place = cluster.place_of(leader).await.unwrap();
    clocks.set(place, TWO_DAYS);
    status_says(&cluster, &format!("node {leader} is 48h ahead")).await;
    status_says(&cluster, "timestamps follow the majority").await;
    let node = &cluster.nodes[place];
    let offset = node.sample("rangedb_clock_offset_seconds").await.unwrap();
    assert!((170_000.0..175_000.0).contains(&offset), "{offset}");
    assert!(node.log_text().contains("differs from the majority's"), "{}", node.log_text());
    // Waits for longer than other reasons may keep the floor in place.
    let begun = client.timestamp().await.unwrap();
    until("the floor could have moved", 2 * SOON, async || {
        let now = client.timestamp().await.map_err(|error| error.to_string())?;
        is_near(now).unwrap();
        let passed = Duration::from_millis(now.millis() - begun.millis());
        check(passed > FLOOR_MOVES, format!("{passed:?} passed"))
    })
    .await;
    let floor = client.admin().garbage_status().await.unwrap().floor_ts;
    assert!(floor < before.0, "the floor {floor} is above {before}");

    clocks.set(place, "+0");
    status_says(&cluster, "agree").await;
    status_says(&cluster, "in step with the clocks").await;
    is_near(client.timestamp().await.unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_reading_of_the_only_clock_is_followed_slowly_and_left_again() {
    let mut cluster = Cluster::of(1).await;
    let clocks = Clocks::under(&mut cluster);
    let cluster = cluster.start().await;
    let client = cluster.client();
    client.put("/k", "old").await.unwrap();
    clocks.set(0, TWO_DAYS);
    status_says(&cluster, "at twice the speed of time").await;
    is_near(client.timestamp().await.unwrap()).unwrap();
    clocks.set(0, "+0");
    status_says(&cluster, "in step with the clocks").await;
    is_near(client.timestamp().await.unwrap()).unwrap();
    assert!(cluster.nodes[0].log_text().contains("timestamps catch up"));
}

/// Any of the founders may become the first oracle, before it has heard the clock of another node.
#[tokio::test(flavor = "multi_thread")]
async fn one_wrong_clock_founds_no_cluster() {
    for place in 0..3 {
        let mut cluster = Cluster::of(3).await;
        let clocks = Clocks::under(&mut cluster);
        clocks.set(place, TWO_DAYS);
        let cluster = cluster.start().await;
        let client = cluster.client();
        client.put("/k", "v").await.unwrap();
        is_near(client.timestamp().await.unwrap()).unwrap();
    }
}
