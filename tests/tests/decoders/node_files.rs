//! Files that a node reads when it starts: its identity and its configuration. Also the requests of
//! strangers to a node that belongs to no cluster yet.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use prost::Message as _;
use rangedb_client::net::{BoxFuture, CallError, Net};
use rangedb_proto::v1::{
    self, BootstrapAccept, BootstrapBallot, BootstrapDecided, BootstrapPrepare, BootstrapRequest,
    Formation, NodeDescriptor, bootstrap_request::Body,
};
use rangedb_server::bootstrap::{Bootstrap, Intent};
use rangedb_server::config::{Config, ServerArgs};
use rangedb_server::identity::{Ballot, DataDir, Membership};

use crate::allocation::bounded_with;
use crate::mutate::{cases, input};

/// Maximum memory of reading a file, as a multiple of its length and a constant: a file is read
/// whole and parsed into a tree.
const TIMES: usize = 128;
const SLACK_BYTES: usize = 256 << 10;

fn formation(nodes: u64) -> Formation {
    let node = |node_id| NodeDescriptor {
        node_id,
        peer_address: format!("n{node_id}:8080"),
        client_address: format!("n{node_id}:8081"),
        directory_id: 1000 + node_id,
        ..Default::default()
    };
    Formation {
        cluster_id: 5,
        nodes: (1..=nodes).map(node).collect(),
        replication_factor: 3,
        split_keys: vec!["/m".to_owned()],
        founded_unix_ms: 1_780_000_000_000,
    }
}

/// Returns first lines of IDENTITY files, without their checksums.
fn identities() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    let line = || {
        let bytes = std::fs::read(dir.path().join("IDENTITY")).unwrap();
        bytes.split(|byte| *byte == b'\n').next().unwrap().to_vec()
    };
    let mut lines = vec![line()];
    data.update(|identity| {
        identity.set_promised(Ballot { round: 3, directory_id: 9 });
        identity.set_accepted(Ballot { round: 3, directory_id: 9 }, &formation(3));
    })
    .unwrap();
    lines.push(line());
    data.update(|identity| {
        let membership = Membership { cluster_id: 5, node_id: 1 };
        identity.become_member(membership, Some(&formation(3)));
        identity.set_nodes(&formation(4).nodes);
    })
    .unwrap();
    lines.push(line());
    lines
}

fn config_files() -> Vec<Vec<u8>> {
    let texts = [
        "peer_address = \"a:1\"\npeers = [\"a:1\", \"b:2\"]\ncluster_init = true\nstores = 2\n",
        "[raft]\ntick_ms = 100\nelection_ticks = 10\nheartbeat_ticks = 2\nqueue_bytes = \"32 MiB\"\n\
         inflight_messages = 9\nlog_keep_bytes = 1048576\n",
        "log_level = \"info\"\nread_mode = \"read-index\"\n[storage]\nblock_cache_bytes = \"1TiB\"\n\
         [limits]\nsnapshots = 1\nstream_requests = 7\n",
        "[raft]\nelection_ticks = 9223372036854775807\nheartbeat_ticks = 9223372036854775807\n",
        "[raft]\ntick_ms = 9223372036854775807\n[limits]\nstore_queue_bytes = \"18446744073709551615\"\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).into()
}

fn open(path: &Path) -> Result<DataDir, rangedb_server::identity::IdentityError> {
    DataDir::open(path)
}

proptest! {
    // Each case writes a file.
    #![proptest_config(cases(2))]

    #[test]
    fn an_identity_file_of_any_bytes_is_refused_or_kept(
        line in input(identities()),
        checksum in prop::option::weighted(0.2, "[0-9a-f]{0,9}"),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let checksum = checksum.unwrap_or_else(|| format!("{:08x}", crc32fast::hash(&line)));
        let file = [&line[..], b"\n", checksum.as_bytes(), b"\n"].concat();
        std::fs::write(dir.path().join("IDENTITY"), &file).unwrap();
        let bytes_max = file.len() * TIMES + SLACK_BYTES;
        let Ok(data) = bounded_with(bytes_max, || open(dir.path())) else { return Ok(()) };
        let identity = data.identity();
        identity.nodes();
        identity.accepted();
        identity.formation();
        data.update(|identity| identity.opened = !identity.opened).unwrap();
        drop(data);
        let again = DataDir::open(dir.path()).unwrap().identity();
        prop_assert_eq!(again.opened, !identity.opened);
        prop_assert_eq!(again.membership(), identity.membership());
    }

    #[test]
    fn a_configuration_file_of_any_bytes_is_refused_or_complete(text in input(config_files())) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rangedb.toml");
        std::fs::write(&path, &text).unwrap();
        let args = ServerArgs { config: Some(path), ..Default::default() };
        let loaded = bounded_with(text.len() * TIMES + SLACK_BYTES, || Config::load(args));
        if let Ok(config) = loaded {
            prop_assert!(config.stores > 0);
            // The store calculates with these, so they must not overflow.
            config.raft.vote_promise_us();
            config.raft.vote_embargo_us();
        }
    }

    #[test]
    fn addresses_of_any_text_are_refused_or_have_a_port(address in ".{0,30}", port in any::<u32>()) {
        for address in [address.clone(), format!("{address}:{port}")] {
            let args = ServerArgs { peers: vec![address.clone()], ..Default::default() };
            if let Ok(config) = Config::load(args) {
                for peer in config.peers {
                    let port = peer.rsplit_once(':').unwrap().1;
                    prop_assert!(port.parse::<u16>().unwrap() > 0);
                }
            }
        }
    }
}

/// Network in which no address answers.
struct Nobody;

impl Net for Nobody {
    fn call<'a>(
        &'a self,
        _address: &'a str,
        _request: v1::request::Body,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<v1::response::Body, CallError>> {
        Box::pin(async { Err(CallError::NotSent("nobody is there".into())) })
    }

    fn sleep(&self, _duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn random_below(&self, _bound: u64) -> u64 {
        0
    }

    fn spawn(&self, _task: BoxFuture<'static, ()>) {}
}

fn ballot() -> impl Strategy<Value = Option<BootstrapBallot>> {
    let round = prop_oneof![0..5_u64, Just(u64::MAX - 1), Just(u64::MAX)];
    let ballot =
        (round, 0..5_u64).prop_map(|(round, directory_id)| BootstrapBallot { round, directory_id });
    prop::option::weighted(0.9, ballot)
}

fn formations() -> impl Strategy<Value = Option<Formation>> {
    let any_bytes = input(vec![formation(1).encode_to_vec(), formation(3).encode_to_vec()]);
    any_bytes.prop_map(|bytes| Formation::decode(&bytes[..]).ok())
}

fn bootstrap_request() -> impl Strategy<Value = BootstrapRequest> {
    let body = prop_oneof![
        ballot().prop_map(|ballot| Body::Prepare(BootstrapPrepare { ballot })),
        (ballot(), formations())
            .prop_map(|(ballot, formation)| Body::Accept(BootstrapAccept { ballot, formation })),
        formations().prop_map(|formation| Body::Decided(BootstrapDecided { formation })),
    ];
    prop::option::weighted(0.95, body).prop_map(|body| BootstrapRequest { body })
}

proptest! {
    // Each case syncs votes.
    #![proptest_config(cases(8))]

    #[test]
    fn a_node_that_strangers_talk_to_keeps_its_word(
        requests in prop::collection::vec(bootstrap_request(), 1..8)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let data = Arc::new(DataDir::open(dir.path()).unwrap());
        let found = Box::new(|_: &Formation, _| Ok(()));
        let intent = Intent::default();
        let node = NodeDescriptor::default();
        let bootstrap = Bootstrap::new(data.clone(), node, intent, Arc::new(Nobody), found);
        for request in requests {
            let before = data.identity();
            let reply = bootstrap.answer(request).unwrap();
            let after = data.identity();
            prop_assert!(after.promised() >= before.promised());
            prop_assert_eq!(after.membership(), None);
            // A higher ballot must still be possible.
            prop_assert!(reply.promised.is_none_or(|ballot| ballot.round < u64::MAX / 2));
        }
    }
}
