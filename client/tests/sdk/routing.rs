//! Routing of requests, and their end where no node can be found.

use std::time::Duration;

use crate::fake::{Cluster, Mode, Range};
use futures::future::join;
use rangedb_client::net::Net;
use rangedb_client::{Batch, Condition, Error, PutOptions, RangeOptions, Test, Timestamp};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_was_put_is_read_back() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(async {
        let written = client.put("k", "v").await.unwrap();
        let row = client.get("k").await.unwrap().unwrap();
        assert_eq!((&row.value[..], row.version), (&b"v"[..], 1));
        assert_eq!(row.mod_ts, written.commit_ts);
        assert_eq!(client.get("absent").await.unwrap(), None);
        assert!(client.delete("k").await.unwrap().existed);
        assert_eq!(client.get("k").await.unwrap(), None);
    });
}

#[test]
fn one_look_up_teaches_all_ranges_and_the_leader_is_asked_directly() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(async { client.get_many(["A", "a", "z"]).await }).unwrap();
    assert_eq!(cluster.run(async { client.get("b").await }).unwrap(), None);
    let log = std::mem::take(&mut cluster.state.lock().log);
    assert!(log.iter().filter(|(_, kind)| *kind == "locate").count() <= 3, "{log:?}");
    assert!(log.iter().filter(|(_, kind)| *kind == "read").all(|(node, _)| *node == 1));
}

#[test]
fn a_leader_that_moved_is_found_by_the_hint() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.get("k")).unwrap();
    cluster.take_log("read");
    cluster.change(|state| state.ranges.iter_mut().for_each(|range| range.leader = 3));
    cluster.run(client.get("k")).unwrap();
    assert_eq!(cluster.take_log("read"), [1, 3]);
    cluster.run(client.get("k")).unwrap();
    assert_eq!(cluster.take_log("read"), [3], "the new leader is remembered");
}

#[test]
fn a_leader_that_moved_is_found_without_a_hint() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.get("k")).unwrap();
    cluster.take_log("read");
    cluster.change(|state| {
        state.hints = false;
        state.ranges.iter_mut().for_each(|range| range.leader = 3);
    });
    cluster.run(client.get("k")).unwrap();
    assert_eq!(cluster.take_log("read"), [1, 2, 3]);
    cluster.run(client.get("k")).unwrap();
    assert_eq!(cluster.take_log("read"), [3], "the new leader is remembered");
}

#[test]
fn a_split_is_learnt_from_the_refusal_without_the_directory() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.put("x", "before")).unwrap();
    cluster.change(|state| {
        let old = state.ranges.clone();
        state.ranges[3] = Range::new(4, "m", "t", 2, &[1, 2, 3], 1);
        state.ranges.push(Range::new(9, "t", "", 2, &[1, 2, 3], 2));
        state.directory = Some(old);
    });
    cluster.take_log("");
    let row = cluster.run(client.get("x")).unwrap().unwrap();
    assert_eq!(&row.value[..], b"before");
    assert_eq!(cluster.take_log("locate"), []);
}

#[test]
fn a_range_that_moved_to_other_nodes_is_looked_up_again() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.get("k")).unwrap();
    cluster.change(|state| state.ranges[2] = Range::new(3, "_0", "m", 5, &[4, 5], 5));
    cluster.take_log("");
    cluster.run(client.get("k")).unwrap();
    assert_eq!(cluster.take_log("read").last(), Some(&5));
}

#[test]
fn a_range_whose_nodes_are_all_gone_is_looked_up_again() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.get("k")).unwrap();
    cluster.change(|state| state.ranges[2] = Range::new(3, "_0", "m", 5, &[4, 5], 5));
    (1..=3).for_each(|node| cluster.set_mode(node, Mode::Down));
    cluster.run(client.get("k")).unwrap();
    assert_eq!(cluster.take_log("read").last(), Some(&5));
}

#[test]
fn a_known_range_outlives_an_election_while_the_directory_is_unreachable() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.get("k")).unwrap();
    cluster.change(|state| {
        state.directory_down = true;
        state.ranges[2].leader = 0;
    });
    let before = cluster.clock.now();
    cluster.run(async {
        let elect = async {
            cluster.sleep(SECOND / 2).await;
            cluster.change(|state| state.ranges[2].leader = 2);
        };
        join(client.get("k"), elect).await.0.unwrap();
    });
    assert!(cluster.clock.now() - before < 2 * SECOND);
}

#[test]
fn a_known_range_is_read_while_the_directory_is_unreachable() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.get("k")).unwrap();
    cluster.change(|state| state.ranges[2].leader = 3);
    cluster.set_mode(1, Mode::Down);
    cluster.set_mode(2, Mode::Down);
    cluster.set_mode(4, Mode::Down);
    cluster.set_mode(5, Mode::Down);
    let before = cluster.clock.now();
    cluster.run(client.get("k")).unwrap();
    assert!(cluster.clock.now() - before < SECOND / 10);
}

#[test]
fn a_seed_that_is_down_is_passed_over() {
    let cluster = Cluster::new();
    cluster.set_mode(1, Mode::Down);
    cluster.change(|state| state.ranges.iter_mut().for_each(|range| range.leader = 2));
    let client = cluster.client();
    cluster.run(client.get("k")).unwrap();
    assert!(cluster.clock.now() < SECOND / 10);
}

#[test]
fn a_seed_that_is_not_part_of_the_cluster_is_passed_over() {
    let cluster = Cluster::new();
    cluster.set_mode(1, Mode::Stranger);
    cluster.change(|state| state.ranges.iter_mut().for_each(|range| range.leader = 2));
    let client = cluster.client();
    cluster.run(client.get("k")).unwrap();
}

#[test]
fn a_cluster_that_comes_back_is_found_by_those_who_wait() {
    let cluster = Cluster::new();
    (1..=5).for_each(|node| cluster.set_mode(node, Mode::Down));
    let client = cluster.client();
    cluster.run(async {
        let restart = async {
            cluster.sleep(3 * SECOND).await;
            (1..=5).for_each(|node| cluster.set_mode(node, Mode::Up));
        };
        join(client.get("k"), restart).await.0.unwrap();
    });
    assert!(cluster.clock.now() < 4 * SECOND);
}

#[test]
fn a_directory_that_does_not_know_the_range_yet_is_asked_again() {
    let cluster = Cluster::new();
    (2..=5).for_each(|node| cluster.set_mode(node, Mode::Hanging));
    cluster.change(|state| state.directory = Some(Vec::new()));
    let client = cluster.client();
    cluster.run(async {
        let report = async {
            cluster.sleep(SECOND / 4).await;
            cluster.change(|state| state.directory = None);
        };
        join(client.get("k"), report).await.0.unwrap();
    });
    assert!(cluster.clock.now() < SECOND, "the node that answers is asked, not another one");
}

#[test]
fn nodes_that_refuse_every_epoch_are_not_asked_without_a_pause() {
    let cluster = Cluster::new();
    (1..=5).for_each(|node| cluster.set_mode(node, Mode::Confused));
    let client = cluster.client().with_timeout(2 * SECOND);
    let error = cluster.run(client.get("k")).unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    let asked = cluster.take_log("read").len();
    assert!((5..40).contains(&asked), "{asked} requests in two seconds");
}

#[test]
fn a_leader_without_a_quorum_is_left_for_the_next() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.get("k")).unwrap();
    cluster.take_log("");
    cluster.set_mode(1, Mode::Isolated);
    cluster.change(|state| state.ranges.iter_mut().for_each(|range| range.leader = 2));
    cluster.run(client.get("k")).unwrap();
    assert_eq!(cluster.take_log("read"), [1, 2]);
}

#[test]
fn a_hanging_leader_costs_one_attempt_and_is_left_alone_afterwards() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.get("k")).unwrap();
    cluster.set_mode(1, Mode::Hanging);
    cluster.change(|state| state.ranges.iter_mut().for_each(|range| range.leader = 2));
    let before = cluster.clock.now();
    cluster.run(client.get("k")).unwrap();
    assert!(cluster.clock.now() - before < SECOND + SECOND / 10);
    let before = cluster.clock.now();
    cluster.run(client.get("k")).unwrap();
    assert!(cluster.clock.now() - before < SECOND / 100);
}

#[test]
fn what_a_range_is_still_working_on_is_waited_for_and_not_sent_again() {
    for kind in ["write", "read"] {
        let cluster = Cluster::new();
        let client = cluster.client();
        cluster.run(client.get("k")).unwrap();
        cluster.take_log("");
        cluster.change(|state| state.slow = Some((kind, 4 * SECOND)));
        let before = cluster.clock.now();
        cluster.run(async {
            match kind {
                "write" => _ = client.put("k", "v").await.unwrap(),
                _ => _ = client.get("k").await.unwrap(),
            }
        });
        assert!(cluster.clock.now() - before >= 4 * SECOND, "{kind}");
        assert_eq!(cluster.take_log(kind), [1], "{kind}");
    }
}

#[test]
fn work_that_takes_longer_than_the_caller_has_time_ends_with_the_time() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.get("k")).unwrap();
    cluster.take_log("");
    cluster.change(|state| state.slow = Some(("write", 60 * SECOND)));
    let before = cluster.clock.now();
    let error = cluster.run(client.put("k", "v")).unwrap_err();
    assert!(matches!(error, Error::Undetermined(_)), "{error}");
    assert!(cluster.clock.now() - before <= 5 * SECOND + SECOND / 100);
    assert_eq!(cluster.take_log("write"), [1]);
}

#[test]
fn a_leader_that_lost_its_range_while_it_worked_is_left_for_the_next() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.get("k")).unwrap();
    cluster.take_log("");
    cluster.change(|state| state.slow = Some(("write", 60 * SECOND)));
    let before = cluster.clock.now();
    cluster.run(async {
        let elect = async {
            cluster.sleep(2 * SECOND).await;
            cluster.change(|state| {
                state.slow = None;
                state.ranges.iter_mut().for_each(|range| range.leader = 2);
            });
        };
        join(client.put("k", "v"), elect).await.0.unwrap();
    });
    assert!(cluster.clock.now() - before < 3 * SECOND);
    assert_eq!(cluster.take_log("write"), [1, 2]);
}

#[test]
fn followers_that_still_name_a_hanging_leader_do_not_hold_up_the_way_to_the_next() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.get("k")).unwrap();
    cluster.set_mode(1, Mode::Hanging);
    let before = cluster.clock.now();
    cluster.run(async {
        let elect = async {
            cluster.sleep(SECOND + SECOND / 2).await;
            cluster.change(|state| state.ranges.iter_mut().for_each(|range| range.leader = 3));
        };
        join(client.get("k"), elect).await.0.unwrap();
    });
    // One attempt before the election, and one that was in flight when it happened.
    assert!(cluster.clock.now() - before < 2 * SECOND + SECOND / 10);
}

#[test]
fn an_overloaded_node_is_given_the_time_it_asks_for() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.get("k")).unwrap();
    cluster.set_mode(1, Mode::Busy(300));
    cluster.take_log("");
    let error = cluster.run(client.with_timeout(SECOND).get("k")).unwrap_err();
    assert!(matches!(error, Error::TooBusy { .. }) && error.is_retryable(), "{error}");
    assert!(cluster.take_log("read").len() <= 4);
}

#[test]
fn without_any_node_a_request_ends_unavailable_at_its_deadline() {
    let cluster = Cluster::new();
    let client = cluster.client();
    (1..=5).for_each(|node| cluster.set_mode(node, Mode::Down));
    for wanted in [SECOND, 3 * SECOND] {
        let before = cluster.clock.now();
        let error = cluster.run(client.with_timeout(wanted).put("k", "v")).unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
        let taken = cluster.clock.now() - before;
        assert!(taken >= wanted && taken < wanted + SECOND / 100, "{taken:?}");
    }
}

#[test]
fn a_write_whose_answer_was_lost_is_applied_once() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.change(|state| state.answers_to_lose = 1);
    let options = PutOptions { conditions: vec![Test::Absent], ..PutOptions::default() };
    let written = cluster.run(client.put_with("k", "v", options)).unwrap();
    let row = cluster.run(client.get("k")).unwrap().unwrap();
    assert_eq!((row.version, row.mod_ts), (1, written.commit_ts));
    assert_eq!(cluster.take_log("write").first(), Some(&1));
}

#[test]
fn a_write_that_is_never_answered_ends_undetermined_and_a_read_unavailable() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.get("k")).unwrap();
    cluster.run(client.timestamp()).unwrap();
    cluster.change(|state| state.answers_to_lose = usize::MAX);
    let before = cluster.clock.now();
    let error = cluster.run(client.put("k", "v")).unwrap_err();
    assert!(matches!(error, Error::Undetermined(_)) && !error.is_retryable(), "{error}");
    assert!(cluster.clock.now() - before <= 5 * SECOND + SECOND / 100);
    cluster.set_mode(1, Mode::AnswersLost);
    cluster.set_mode(2, Mode::AnswersLost);
    cluster.set_mode(3, Mode::AnswersLost);
    let error = cluster.run(client.get("k")).unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
}

#[test]
fn a_refusal_after_a_lost_answer_is_not_taken_for_the_outcome() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.put("k", "1")).unwrap();
    cluster.change(|state| state.answers_to_lose = 1);
    let swap = client.compare_and_swap("k", Some("1".into()), "2");
    let error = cluster.run(async {
        let forget = async {
            // Between the two attempts, the range forgets the command and another client writes.
            cluster.sleep(SECOND / 2).await;
            cluster.change(|state| {
                state.applied.clear();
                let later = (1, state.store.last_commit + 1);
                state.store.write(&"k".into(), Some("3".into()), later);
            });
        };
        join(swap, forget).await.0.unwrap_err()
    });
    assert!(matches!(error, Error::Undetermined(_)), "{error}");
}

#[test]
fn a_failed_condition_says_what_stands_there() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.put("b", "there")).unwrap();
    let batch = Batch::new()
        .when(Condition::absent("a"))
        .when(Condition::value("b", "elsewhere"))
        .put("a", "1");
    match cluster.run(client.batch(batch)).unwrap_err() {
        Error::Conflict { key, condition_index, actual } => {
            assert_eq!((&key[..], condition_index), (&b"b"[..], 1));
            assert_eq!(&actual.unwrap().value[..], b"there");
        }
        other => panic!("{other}"),
    }
    assert_eq!(cluster.run(client.get("a")).unwrap(), None);
}

#[test]
fn a_change_of_configuration_whose_answer_was_lost_is_repeated_and_made_once() {
    let cluster = Cluster::new();
    let client = cluster.client();
    for connections_break in [false, true] {
        cluster.change(|state| {
            state.answers_to_lose = 1;
            state.connections_break = connections_break;
        });
        cluster.run(client.admin().config_set("a", "b", false)).unwrap();
    }
    assert_eq!(cluster.state.lock().config_sets.len(), 2, "two changes by four requests");
    cluster.set_mode(1, Mode::Down);
    cluster.run(client.admin().config_set("a", "b", false)).unwrap();
    // The outcome of one whose answers are all lost is not known.
    cluster.change(|state| state.answers_to_lose = usize::MAX);
    let error = cluster.run(client.admin().config_set("a", "c", false)).unwrap_err();
    assert!(matches!(error, Error::Undetermined(_)), "{error}");
}

#[test]
fn a_hold_whose_release_was_answered_in_vain_is_released() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(client.admin().hold_floor("backup", Timestamp(9), None)).unwrap();
    cluster.change(|state| state.answers_to_lose = 1);
    cluster.run(client.admin().release_floor("backup")).unwrap();
    let error = cluster.run(client.admin().release_floor("backup")).unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
}

#[test]
fn two_runs_are_the_same() {
    let run = || {
        let cluster = Cluster::new();
        let client = cluster.client();
        cluster.set_mode(1, Mode::AnswersLost);
        cluster.change(|state| state.ranges[3].leader = 2);
        cluster.run(async {
            let puts = (0..20).map(|i| client.put(format!("x{i}"), "v"));
            futures::future::join_all(puts).await
        });
        let log = cluster.state.lock().log.clone();
        (log, cluster.clock.now())
    };
    assert_eq!(run(), run());
}

#[test]
fn every_request_can_be_made_from_a_task_of_another_thread() {
    fn is_send<T: Send>(_: T) {}
    let client = Cluster::new().client();
    is_send(client.get("k"));
    is_send(client.put("k", "v"));
    is_send(client.get_many(["k"]));
    is_send(client.timestamp());
    is_send(client.range(RangeOptions::new("", "")));
    is_send(client.admin().cluster_status());
    is_send(client.admin().meta(b"_/"));
    is_send(client.admin().partitions());
}

#[test]
fn a_leader_that_was_left_no_time_to_answer_is_asked_first_again() {
    let cluster = Cluster::new();
    let client = cluster.client();
    cluster.run(async {
        client.put("a", "1").await.unwrap();
        let hasty = client.with_timeout(Duration::from_millis(1));
        assert!(hasty.get("a").await.is_err());
        cluster.take_log("");
        client.get("a").await.unwrap();
    });
    assert_eq!(cluster.take_log("read"), [1]);
}
