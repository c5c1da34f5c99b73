//! Clients of all workloads, which run until they are stopped, and the verdict on what they saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use rangedb_client::{Client, Config};
use rangedb_workload::history::{Outcome, Stamps};
use rangedb_workload::{bank, list_append, register};
use tokio::task::JoinSet;

use crate::support::wait::{check, until};

/// Number of clients of each workload. Together they keep two cores busy with five nodes.
const LIST_CLIENTS: usize = 5;
const BANK_CLIENTS: usize = 3;
const REGISTER_CLIENTS: usize = 2;

/// Number of lists in each range: as many as clients of lists, so that most transactions meet
/// another one and most still commit.
const LISTS: usize = 5;

/// Transactions on lists, out of 1000, that change their client in the middle, and those that their
/// client abandons there with their locks. An abandoned lock stays for ten seconds: with more of
/// them, no client would make progress.
const SUSPENDED_PER_MILLE: u32 = 50;
const DEAD_PER_MILLE: u32 = 2;

/// A client gives up one of this many steps within [`GIVEN_UP_WITHIN_MS`], wherever the step is
/// then.
const GIVEN_UP_ONE_IN: u32 = 40;
const GIVEN_UP_WITHIN_MS: u64 = 150;

/// Timeouts of requests, drawn for each step: below and above the time of a failover.
const TIMEOUTS: [Duration; 3] =
    [Duration::from_millis(700), Duration::from_secs(2), Duration::from_secs(5)];

/// Timeout of the reads at the end and of opening accounts: above a dead client's lock TTL (10 s).
const PATIENCE: Duration = Duration::from_secs(20);

/// Number of steps that each client must complete after the faults have ended.
const PROGRESS_STEPS: u64 = 3;

/// Maximum time for a client's progress after the faults have ended: a lock of a dead client, an
/// election, and a step that was begun before, with all its requests.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);

/// Maximum time until all running steps have ended: six operations and a commit of 5 s each, and
/// more.
const STOP_WITHIN: Duration = Duration::from_secs(90);

#[derive(Clone)]
struct Workloads {
    list: list_append::ListAppend,
    bank: bank::Bank,
    registers: register::Registers,
}

pub struct Load {
    workloads: Workloads,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
    /// Steps of each client that succeeded.
    succeeded: Arc<Vec<AtomicU64>>,
}

/// Summaries of a clean round.
#[derive(Clone, Copy, Default, Debug)]
pub struct Verdict {
    pub list: list_append::Summary,
    pub bank: bank::Summary,
    pub registers: register::Summary,
}

#[derive(Clone, Copy)]
enum Work {
    List,
    Bank,
    Registers,
}

impl Load {
    /// Starts the clients. Each has connections of its own and begins with another node.
    pub async fn start(endpoints: impl Fn(usize) -> String, rng: &mut Rng) -> Load {
        let stamps = Stamps::counter();
        let workloads = Workloads {
            list: list_append::ListAppend::new(
                list_append::Settings {
                    lists: LISTS,
                    suspended_per_mille: SUSPENDED_PER_MILLE,
                    dead_per_mille: DEAD_PER_MILLE,
                    ..Default::default()
                },
                stamps.clone(),
            ),
            bank: bank::Bank::new(Default::default()),
            registers: register::Registers::new(Default::default(), stamps),
        };
        let works = [(Work::List, LIST_CLIENTS), (Work::Bank, BANK_CLIENTS)];
        let works = works.into_iter().chain([(Work::Registers, REGISTER_CLIENTS)]);
        let works: Vec<Work> = works.flat_map(|(work, count)| vec![work; count]).collect();
        let succeeded: Vec<AtomicU64> = works.iter().map(|_| AtomicU64::new(0)).collect();
        let (succeeded, stop) = (Arc::new(succeeded), Arc::new(AtomicBool::new(false)));
        let bank = workloads.bank.clone();
        let opener = connect(&endpoints(0));
        until("the accounts are open", PATIENCE, async || {
            check(bank.open(&opener).await, "not yet")
        })
        .await;
        let mut clients = JoinSet::new();
        for (me, work) in works.into_iter().enumerate() {
            let client = connect(&endpoints(me));
            let (workloads, succeeded, stop) = (workloads.clone(), succeeded.clone(), stop.clone());
            let mut rng = rng.fork();
            clients.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let timeout = TIMEOUTS[rng.usize(0..TIMEOUTS.len())];
                    let client = client.with_timeout(timeout);
                    let gives_up = rng.u32(0..GIVEN_UP_ONE_IN) == 0;
                    let within = match gives_up {
                        true => Duration::from_millis(rng.u64(0..GIVEN_UP_WITHIN_MS)),
                        false => Duration::MAX,
                    };
                    let step = workloads.step(work, &client, me, &mut rng);
                    let outcome = tokio::time::timeout(within, step).await;
                    let outcome = outcome.unwrap_or(Outcome::Unknown);
                    if outcome == Outcome::Ok {
                        succeeded[me].fetch_add(1, Ordering::Relaxed);
                    }
                }
                client.finish().await;
            });
        }
        Load { workloads, stop, clients, succeeded }
    }

    /// Waits until every client has completed `PROGRESS_STEPS` more steps.
    pub async fn progress(&self) {
        let now = || self.succeeded.iter().map(|count| count.load(Ordering::Relaxed));
        let before: Vec<u64> = now().collect();
        until("every client gets on with its work", PROGRESS_WITHIN, async || {
            let late: Vec<usize> = now()
                .zip(&before)
                .enumerate()
                .filter_map(|(me, (now, before))| (now < before + PROGRESS_STEPS).then_some(me))
                .collect();
            check(late.is_empty(), format!("these clients do not: {late:?}"))
        })
        .await;
    }

    /// Stops the clients, reads all data, and checks what the clients saw.
    pub async fn verdict(mut self, endpoints: &str) -> Verdict {
        self.stop.store(true, Ordering::Relaxed);
        let ended = tokio::time::timeout(STOP_WITHIN, async {
            while let Some(client) = self.clients.join_next().await {
                client.expect("no client panics");
            }
        });
        ended.await.expect("every step ends in time");
        let Workloads { list, bank, registers } = self.workloads;
        let client = connect(endpoints).with_timeout(PATIENCE);
        until("the bank is read", 2 * PATIENCE, async || {
            check(bank.read_end(&client).await, "not yet")
        })
        .await;
        until("all lists are read", 2 * PATIENCE, async || {
            check(list.read_all(&client, usize::MAX).await, "not yet")
        })
        .await;
        until("all registers are read", 2 * PATIENCE, async || {
            check(registers.read_all(&client, usize::MAX).await, "not yet")
        })
        .await;
        let surprises = [list.surprises(), bank.surprises(), registers.surprises()].concat();
        assert!(surprises.is_empty(), "errors that nothing explains:\n{}", surprises.join("\n"));
        let judged = tokio::task::spawn_blocking(move || Verdict {
            list: list.check().unwrap_or_else(|anomalies| fail("list-append", &anomalies)),
            bank: bank.check().unwrap_or_else(|problems| fail("bank", &problems)),
            registers: registers.check().unwrap_or_else(|problems| fail("registers", &problems)),
        });
        judged.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
    }
}

impl Workloads {
    async fn step(&self, work: Work, client: &Client, me: usize, rng: &mut Rng) -> Outcome {
        match work {
            Work::List => self.list.step(client, me, rng).await,
            Work::Bank => self.bank.step(client, rng).await,
            Work::Registers => self.registers.step(client, me, rng).await,
        }
    }
}

fn connect(endpoints: &str) -> Client {
    Client::connect(Config::from_list(endpoints).timeout(PATIENCE)).expect("good endpoints")
}

fn fail<P: std::fmt::Display, V>(workload: &str, problems: &[P]) -> V {
    let problems: Vec<String> = problems.iter().map(P::to_string).collect();
    panic!("{workload}: {} problems:\n{}", problems.len(), problems.join("\n"));
}
