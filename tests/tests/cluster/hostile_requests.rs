//! Hostile requests: a hundred thousand that no client of this project sends, over many connections
//! at once. They are of every method, with random fields, mutated, in messages of many. Other
//! clients must not notice.

mod generator;
mod mutation;
mod raw;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use rangedb_client::Client;
use rangedb_proto::v1::node_client::NodeClient;
use rangedb_proto::v1::{RangeHeader, Request, Requests};
use rangedb_workload::hostile::Hostile;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::support::cluster::Cluster;
use crate::support::gateway::{Gateway, connect};
use crate::support::load::{Load, Outcome};
use crate::support::range::header_of;
use crate::support::wait::{SOON, check, until};
use generator::{Generator, OWN, is_ones_right};

const REQUESTS: u64 = 100_000;

/// Requests in one message of a stream.
const BATCH: usize = 64;

/// Number of attackers, over all nodes. Each has connections of its own.
const ATTACKERS: usize = 24;

const MEMORY_LIMIT: u64 = 512 << 20;

/// Election timeout: ten ticks of a tenth of a second.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// Number of writes that are measured before the attack begins.
const QUIET_WRITES: u64 = 600;

const LEADERSHIPS: &str = "rangedb_raft_leaderships_won_total";

/// Counts of what attackers have done.
#[derive(Default)]
struct Done {
    requests: AtomicU64,
    /// Calls that were answered, and not refused.
    answered: AtomicU64,
}

impl Done {
    fn is_enough(&self) -> bool {
        self.requests.load(Ordering::Relaxed) >= REQUESTS
    }
}

/// One attacker: its connections and its knowledge of the cluster.
struct Attacker {
    rng: fastrand::Rng,
    hostile: Hostile,
    generator: Generator,
    methods: Vec<MethodDescriptor>,
    of_clients: Channel,
    of_peers: Channel,
    done: Arc<Done>,
}

impl Attacker {
    async fn attack(mut self) {
        while !self.done.is_enough() {
            match self.rng.usize(0..8) {
                0 => self.stream().await,
                _ => self.call_some_method().await,
            }
        }
    }

    /// Sends many requests in one message, half of them mutated, and learns from the answers.
    async fn stream(&mut self) {
        let mut message = Requests::default();
        for id in 0..BATCH as u64 {
            let body = Some(self.hostile.request());
            let request = Request { id, timeout_ms: 500, body, ..Default::default() };
            let mut encoded = request.encode_to_vec();
            if self.rng.bool() {
                encoded = mutation::mutate(&mut self.rng, &encoded);
            }
            // The original replaces a mutation that does not decode, or that any client has the
            // right to send.
            let mutated = Request::decode(&encoded[..]).ok().filter(|mutated| {
                !is_ones_right(&reflected(&self.methods, "rangedb.v1.Request", mutated))
            });
            message.requests.push(mutated.unwrap_or(request));
        }
        let mut node = NodeClient::new(self.of_clients.clone());
        let asking = async {
            let answers = node.stream(futures::stream::iter([message])).await;
            let Ok(mut answers) = answers.map(tonic::Response::into_inner) else { return };
            while let Ok(Some(some)) = answers.message().await {
                self.done.answered.fetch_add(some.responses.len() as u64, Ordering::Relaxed);
                for answer in some.responses.iter().filter_map(|response| response.body.as_ref()) {
                    self.hostile.hear(answer);
                }
            }
        };
        // With the short timeout, some answers are left unread.
        let patience = self.rng.choice([50, 2000]).unwrap_or(0);
        let _ = tokio::time::timeout(Duration::from_millis(patience), asking).await;
        self.done.requests.fetch_add(BATCH as u64, Ordering::Relaxed);
    }

    /// Calls any method with random messages, half of them mutated.
    async fn call_some_method(&mut self) {
        let method = self.rng.choice(&self.methods).expect("there are methods").clone();
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let count = if method.is_client_streaming() { self.rng.usize(0..4) } else { 1 };
        let messages = (0..count).map(|_| self.message(&method)).collect();
        // The peer address gets only calls of `Peer`, made without knowledge of the cluster. A
        // caller that is let in there and knows the cluster is a node.
        let is_of_peers = method.parent_service().name() == "Peer" && self.rng.bool();
        let channel = if is_of_peers { self.of_peers.clone() } else { self.of_clients.clone() };
        let answered = raw::call(channel, &path, messages).await;
        self.done.requests.fetch_add(count.max(1) as u64, Ordering::Relaxed);
        self.done.answered.fetch_add(answered.into(), Ordering::Relaxed);
    }

    fn message(&mut self, method: &MethodDescriptor) -> Bytes {
        loop {
            let message = self.generator.message(&method.input());
            if is_ones_right(&message) {
                continue;
            }
            let encoded = message.encode_to_vec();
            if self.rng.bool() {
                return encoded.into();
            }
            let mutated = mutation::mutate(&mut self.rng, &encoded);
            let decoded = DynamicMessage::decode(method.input(), &mutated[..]);
            if decoded.is_ok_and(|decoded| is_ones_right(&decoded)) {
                return encoded.into();
            }
            return mutated.into();
        }
    }
}

/// Converts a message of the protocol to a reflected message, with its fields by name.
fn reflected(methods: &[MethodDescriptor], name: &str, message: &impl Message) -> DynamicMessage {
    let pool = methods.first().expect("there are methods").parent_pool();
    let descriptor = pool.get_message_by_name(name).expect("a message of the protocol");
    DynamicMessage::decode(descriptor, &message.encode_to_vec()[..]).expect("it was encoded")
}

/// Lists the methods of every service.
fn methods() -> Vec<MethodDescriptor> {
    let pool = DescriptorPool::decode(rangedb_proto::FILE_DESCRIPTORS).expect("descriptors");
    let methods: Vec<_> =
        pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
    assert!(methods.len() >= 11, "services of the protocol are missing");
    methods
}

async fn leaderships(cluster: &Cluster) -> f64 {
    let mut won = 0.0;
    for node in &cluster.nodes {
        won += node.metric(LEADERSHIPS).await.unwrap();
    }
    won
}

/// Runs attackers at every node until they have sent enough requests.
async fn attack(cluster: &Cluster, home: RangeHeader, known_ts: u64) -> Arc<Done> {
    let done = Arc::new(Done::default());
    let mut attackers = JoinSet::new();
    for number in 0..ATTACKERS {
        let node = &cluster.nodes[number % cluster.nodes.len()];
        let seed = number as u64;
        let attacker = Attacker {
            rng: fastrand::Rng::with_seed(seed),
            hostile: Hostile::new(seed, OWN),
            generator: Generator::new(seed, home, known_ts),
            methods: methods(),
            of_clients: connect(&node.client).await,
            of_peers: connect(&node.peer).await,
            done: done.clone(),
        };
        attackers.spawn(attacker.attack());
    }
    attackers.join_all().await;
    done
}

fn longest(outcome: &Outcome) -> Duration {
    let writes = outcome.writes.iter();
    writes.map(|write| write.ended - write.began).max().expect("there were writes")
}

/// Asserts that everything acknowledged is there, through every node.
async fn check_writes(clients: &[Client], outcome: &Outcome) {
    for (place, write) in outcome.writes.iter().enumerate() {
        let found = clients[place % clients.len()].get(write.key.clone()).await.unwrap();
        assert_eq!(found.unwrap().value, write.value, "{}", write.key);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_hostile_requests_disturb_nobody() {
    let limit = MEMORY_LIMIT.to_string();
    let mut cluster = Cluster::of(3).await.with_flags(["--memory-limit", &limit]).start().await;
    cluster.replicated(3, SOON).await;
    cluster.balanced().await;
    let clients: Vec<Client> = (0..3).map(|node| cluster.client_of(node)).collect();
    let home = header_of(&cluster, OWN.as_bytes()).await;
    let known_ts = clients[0].timestamp().await.unwrap().0;

    let quiet = Load::start(clients.clone(), "victim/quiet/");
    quiet.progress(QUIET_WRITES).await;
    let quiet = quiet.stop().await;
    let before = leaderships(&cluster).await;

    let victims = Load::start(clients.clone(), "victim/beside/");
    let began = Instant::now();
    let done = attack(&cluster, home, known_ts).await;
    let took = began.elapsed();
    let beside = victims.stop().await;

    for node in &mut cluster.nodes {
        assert!(node.is_running(), "{} ended", node.name);
        let peak = node.process().peak_memory().expect("it runs");
        assert!(peak <= MEMORY_LIMIT, "{} had {peak} bytes", node.name);
        // A panic in the task of a request disturbs no other request, and is a fault all the same.
        assert!(!node.log_text().contains("panicked"), "a panic in {}", node.name);
    }
    assert_eq!(beside.failures(), Vec::<String>::new());
    assert_eq!(leaderships(&cluster).await, before, "a leadership moved");
    let (quiet_longest, beside_longest) = (longest(&quiet), longest(&beside));
    let requests = done.requests.load(Ordering::Relaxed);
    let answered = done.answered.load(Ordering::Relaxed);
    // A disk that others use may stand still for longer than an election takes. The quiet load
    // shows that.
    let allowed = ELECTION_TIMEOUT.max(2 * quiet_longest);
    assert!(
        beside_longest <= allowed,
        "a write took {beside_longest:?} beside {requests} requests in {took:?}, alone {quiet_longest:?}"
    );
    assert!(answered * 10 >= requests, "most requests came nowhere: {answered} of {requests}");
    check_writes(&clients, &beside).await;

    // Locks that the attackers left do not block their keys for ever, and every replica is still
    // there.
    cluster.replicated(3, SOON).await;
    let mut gateway = Gateway::of(&cluster.nodes[0].client).await;
    gateway.put("victim/after", "v").await.unwrap();
    until("all replicas stand at the same entry", SOON, async || {
        let mut applied = Vec::new();
        for node in &cluster.nodes {
            applied.push(node.metric("rangedb_range_applied_index").await?);
        }
        check(applied.windows(2).all(|two| two[0] == two[1]), format!("{applied:?}"))
    })
    .await;
}
