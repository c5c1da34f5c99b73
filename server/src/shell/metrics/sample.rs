//! Figures read at one moment, as families that can be written out.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// Builds one family: `Sample::counter(name, help).with(&[("store", "0")], 7.0)`.
pub(super) struct Sample(MetricFamily);

impl Sample {
    pub fn counter(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::COUNTER)
    }

    pub fn gauge(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::GAUGE)
    }

    fn new(name: &str, help: &str, kind: MetricType) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Sample(family)
    }

    pub fn with(mut self, labels: &[(&str, &str)], value: f64) -> Self {
        let mut metric = Metric::default();
        let pairs = labels.iter().map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        metric.set_label(pairs.collect());
        if self.0.get_field_type() == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        let mut metrics = self.0.take_metric();
        metrics.push(metric);
        self.0.set_metric(metrics);
        self
    }

    pub fn finish(self) -> MetricFamily {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn a_family_is_written_with_help_type_and_labels() {
        let family = Sample::counter("rangedb_x_total", "What x is.")
            .with(&[("store", "0")], 3.0)
            .with(&[("store", "1")], 4.0)
            .finish();
        assert_eq!(
            TextEncoder::new().encode_to_string(&[family]).unwrap(),
            "# HELP rangedb_x_total What x is.\n# TYPE rangedb_x_total counter\n\
             rangedb_x_total{store=\"0\"} 3\nrangedb_x_total{store=\"1\"} 4\n"
        );
    }
}
