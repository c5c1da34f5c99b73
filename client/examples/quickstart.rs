use rangedb_client::{Batch, Client, Condition, Config, Error, RangeOptions};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let endpoints = std::env::var("RANGEDB_ENDPOINTS").unwrap_or("127.0.0.1:8081".to_owned());
    let client = Client::connect(Config::from_list(&endpoints))?;

    client.put("/users/ada", "countess").await?;
    let ada = client.get("/users/ada").await?.expect("written just now");
    assert_eq!(ada.value, "countess");

    // Writes only if nobody changed the row since it was read.
    let batch = Batch::new()
        .when(Condition::version("/users/ada", ada.version))
        .put("/users/ada", "programmer")
        .put("/users/grace", "admiral");
    match client.batch(batch).await {
        Ok(committed) => println!("committed at {}", committed.commit_ts),
        Err(Error::Conflict { actual, .. }) => println!("somebody was faster: {actual:?}"),
        Err(error) => return Err(error),
    }

    let mut users = client.range(RangeOptions::prefix("/users/").limit(100));
    while let Some(user) = users.next().await {
        let user = user?;
        println!("{} = {}", user.key.escape_ascii(), user.value.escape_ascii());
    }

    assert!(client.delete("/users/ada").await?.existed);
    assert_eq!(client.get("/users/ada").await?, None);
    Ok(())
}
