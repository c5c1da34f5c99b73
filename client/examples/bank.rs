use futures::future::try_join_all;
use rangedb_client::{Client, Config, Error, RangeOptions, Transaction, TransactionOptions};

const ACCOUNTS: u64 = 10;

fn account(number: u64) -> String {
    format!("/accounts/{number:04}")
}

async fn balance(txn: &Transaction, number: u64) -> Result<u64, Error> {
    let row = txn.get(account(number)).await?.expect("every account was opened");
    Ok(String::from_utf8_lossy(&row.value).parse().expect("a balance is a number"))
}

/// Moves money to another account if there is enough. The closure may run several times, so it acts
/// only through the transaction.
async fn transfer(client: &Client, from: u64, to: u64, amount: u64) -> Result<bool, Error> {
    let moved = client.transaction(|txn| async move {
        let available = balance(&txn, from).await?;
        if available < amount {
            return Ok(false);
        }
        let there = balance(&txn, to).await?;
        txn.put(account(from), (available - amount).to_string()).await?;
        txn.put(account(to), (there + amount).to_string()).await?;
        Ok(true)
    });
    moved.await
}

/// Returns the sum of all accounts at one moment, whatever is being transferred.
async fn total(client: &Client) -> Result<u64, Error> {
    let options = TransactionOptions { read_only: true, ..Default::default() };
    let txn = client.begin(options).await?;
    let mut rows = txn.range(RangeOptions::prefix("/accounts/"));
    let mut total = 0;
    while let Some(row) = rows.next().await {
        total += String::from_utf8_lossy(&row?.value).parse::<u64>().expect("a number");
    }
    Ok(total)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let endpoints = std::env::var("RANGEDB_ENDPOINTS").unwrap_or("127.0.0.1:8081".to_owned());
    let client = Client::connect(Config::from_list(&endpoints))?;
    let open = |txn: Transaction| async move {
        for number in 0..ACCOUNTS {
            txn.put(account(number), "100").await?;
        }
        Ok(())
    };
    client.transaction(open).await?;

    let work = |worker: u64| {
        let client = client.clone();
        async move {
            for step in 1..=20 {
                let other = (worker + 1 + step % (ACCOUNTS - 1)) % ACCOUNTS;
                transfer(&client, worker, other, step).await?;
                assert_eq!(total(&client).await?, ACCOUNTS * 100);
            }
            Ok::<(), Error>(())
        }
    };
    try_join_all((0..ACCOUNTS).map(work)).await?;
    println!("{ACCOUNTS} accounts hold {} together", total(&client).await?);
    Ok(())
}
