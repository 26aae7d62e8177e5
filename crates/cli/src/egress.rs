//! A provider's egress as shown to users: declared, measured and sold, in bytes a second.

use crate::failure::Outcome;
use crate::ledger::Ledger;
use posync_protocol::{
    Account, Class,
    capacity::sellable_egress,
    limits::Parameters,
    record::{MEASURED, Measured, Offer, Provider},
};
use serde_json::{Value, json};

/// A provider's egress figures on the ledger.
pub(crate) struct Egress {
    declared: u64,
    sold: u64,
    sellable: u64,
    measured: Measured,
    parameters: Parameters,
}

impl Egress {
    /// Reads the ledger's measurements of a provider.
    pub(crate) async fn read(
        ledger: &Ledger,
        account: &Account,
        offer: &Offer,
        provider: &Provider,
    ) -> Outcome<Self> {
        let measured: Option<Measured> = ledger.read(Measured::key(account)).await?;
        Ok(Self::new(offer, provider, measured.unwrap_or_default(), *ledger.parameters()))
    }

    fn new(offer: &Offer, provider: &Provider, measured: Measured, parameters: Parameters) -> Self {
        let sellable = sellable_egress(offer, Some(&measured));
        let (declared, sold) = (offer.capacity[Class::Egress], provider.sold[Class::Egress]);
        Self { declared, sold, sellable, measured, parameters }
    }

    fn rate(&self, bytes: u64) -> u64 {
        self.parameters.bytes_per_second(bytes)
    }

    /// The rates, and the measurements behind them in bytes an epoch, as JSON.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "declared_bytes_per_second": self.rate(self.declared),
            "measured_bytes_per_second": self.measured.median().map(|median| self.rate(median)),
            "sold_bytes_per_second": self.rate(self.sold),
            "sellable_bytes_per_second": self.rate(self.sellable),
            "declared_bytes_per_epoch": self.declared, "sold_bytes_per_epoch": self.sold,
            "measurements": self.measured })
    }

    /// Declared and measured rates, as cells of a table.
    pub(crate) fn cells(&self) -> [String; 2] {
        let measured =
            self.measured.median().map_or_else(|| "-".to_owned(), |median| self.rate(median).to_string());
        [self.rate(self.declared).to_string(), measured]
    }

    /// The rates and measurements as text.
    pub(crate) fn to_text(&self) -> String {
        let taken = usize::from(self.measured.taken).min(MEASURED);
        let each = self.measured.epochs.iter().zip(self.measured.rates).take(taken);
        let each: Vec<String> =
            each.map(|(epoch, rate)| format!("{} in epoch {epoch}", self.rate(rate))).collect();
        let measured = match self.measured.median() {
            Some(median) => {
                format!("{} measured, the lower median of {}", self.rate(median), each.join(", "))
            }
            None if each.is_empty() => "not measured yet; it sells what it declares".to_owned(),
            None => {
                format!("measured less than three times ({}); it sells what it declares", each.join(", "))
            }
        };
        format!(
            "{} of {} bytes a second sold ({} declared; {measured})",
            self.rate(self.sold),
            self.rate(self.sellable),
            self.rate(self.declared)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::{PerClass, Record as _, record};

    fn offer() -> Offer {
        let mut slot = [0; 256];
        (slot[0], slot[1]) = (Offer::KIND, record::VERSION);
        let blank = Offer::from_slot(&slot).expect("zeros are an offer");
        Offer { capacity: PerClass::new(0, 10 << 20, 0), ..blank }
    }

    #[test]
    fn what_was_measured_is_said_and_caps_what_may_be_sold() {
        let provider = Provider { sold: PerClass::new(0, 5 << 20, 0), ..Provider::default() };
        let of = |measured| Egress::new(&offer(), &provider, measured, Parameters::LOCAL);
        let none = of(Measured::default());
        assert_eq!(none.cells(), ["1048576", "-"]);
        assert!(none.to_text().starts_with("524288 of 1048576 bytes a second sold"), "{}", none.to_text());
        let once = of(Measured { taken: 1, epochs: [4, 0, 0], rates: [8 << 20, 0, 0] });
        assert!(once.to_text().contains("less than three times (838860 in epoch 4)"), "{}", once.to_text());
        let thrice = of(Measured { taken: 3, epochs: [6, 5, 4], rates: [8 << 20, 5 << 20, 9 << 20] });
        assert_eq!(thrice.cells(), ["1048576", "838860"]);
        let text = thrice.to_text();
        assert!(text.starts_with("524288 of 838860") && text.contains("524288 in epoch 5"), "{text}");
        let json = thrice.to_json();
        assert_eq!(json["measured_bytes_per_second"], 838_860);
        assert_eq!(json["measurements"]["epochs"], serde_json::json!([6, 5, 4]));
    }
}
