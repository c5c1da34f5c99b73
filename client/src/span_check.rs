//! Whether a batch lies in one range. Batches over ranges need two-phase commit, which this client
//! does not have yet: until then they are refused whole, before anything is sent.

use std::collections::BTreeSet;
use std::time::Duration;

use rangedb_proto::{RangeDescriptorExt, v1::RangeDescriptor};

use crate::error::{Error, Result};
use crate::keys::Span;
use crate::router::Place;
use crate::sender::Sender;

/// Ranges counted for the message at most; each may cost a look-up.
const COUNTED_MAX: usize = 16;

/// Refuses spans that are not all in the range of `descriptor`, which holds the first.
pub(crate) async fn check_one_range(
    sender: &Sender,
    descriptor: &RangeDescriptor,
    spans: &[Span],
    deadline: Duration,
) -> Result<()> {
    if spans.iter().all(|span| descriptor.covers(&span.start, &span.end)) {
        return Ok(());
    }
    let count = count_ranges(sender, spans, deadline).await?;
    if count == 1 {
        // What was cached was older than what the count has seen: all lies in one range now.
        return Ok(());
    }
    let or_more = if count == COUNTED_MAX { " or more" } else { "" };
    let message = format!(
        "the batch covers keys of {count}{or_more} ranges; \
         batches over ranges come with transactions"
    );
    Err(Error::invalid("operations", message))
}

async fn count_ranges(sender: &Sender, spans: &[Span], deadline: Duration) -> Result<usize> {
    let mut ranges = BTreeSet::new();
    for span in spans {
        let mut next = Some(span.start.clone());
        while let Some(start) = next {
            if ranges.len() == COUNTED_MAX {
                return Ok(COUNTED_MAX);
            }
            let range = sender.locate(Place::Key(&start), deadline).await?;
            ranges.insert(range.range_id);
            next = (!range.covers(&start, &span.end)).then(|| range.end_key.clone());
        }
    }
    Ok(ranges.len())
}
