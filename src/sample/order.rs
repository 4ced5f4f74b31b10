//! The names of the stages and the order they stand in: the chain is data.

use crate::base::{Error, Result};

/// A stage that an order string can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Penalties,
    Dry,
    TopNSigma,
    TopK,
    Typical,
    TopP,
    MinP,
    Xtc,
    Temperature,
    AdaptiveP,
}

/// Kind, llama.cpp's letter for it, its name, and the other names it goes by.
const NAMES: [(Kind, char, &str, &[&str]); 10] = [
    (Kind::Penalties, 'e', "penalties", &[]),
    (Kind::Dry, 'd', "dry", &[]),
    (Kind::TopNSigma, 's', "top_n_sigma", &["top-n-sigma"]),
    (Kind::TopK, 'k', "top_k", &["top-k"]),
    (Kind::Typical, 'y', "typ_p", &["typ-p", "typ", "typical", "typical_p", "typical-p"]),
    (Kind::TopP, 'p', "top_p", &["top-p", "nucleus"]),
    (Kind::MinP, 'm', "min_p", &["min-p"]),
    (Kind::Xtc, 'x', "xtc", &[]),
    (Kind::Temperature, 't', "temperature", &["temp"]),
    (Kind::AdaptiveP, 'a', "adaptive_p", &["adaptive-p"]),
];

/// The default order. Logit bias stands before it, the draw behind it.
pub const DEFAULT_ORDER: &str = "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature";

/// Reads an order: names joined by `;`. A name may stand twice. Fails on an unknown one.
pub(super) fn parse(order: &str) -> Result<Vec<Kind>> {
    order.split(';').map(str::trim).filter(|name| !name.is_empty()).map(kind).collect()
}

fn kind(name: &str) -> Result<Kind> {
    let is = |row: &&(Kind, char, &str, &[&str])| row.2 == name || row.3.contains(&name);
    NAMES.iter().find(is).map(|row| row.0).ok_or_else(|| {
        let known: Vec<_> = NAMES.iter().map(|row| row.2).collect();
        Error::usage(format!("unknown sampler {name:?}")).help(format!("known are {}", known.join(", ")))
    })
}

/// Turns llama.cpp's short form, a letter per sampler (`edskypmxt` is the default), into an order string.
pub fn order_from_letters(letters: &str) -> Result<String> {
    let name = |letter: char| {
        NAMES.iter().find(|row| row.1 == letter).map(|row| row.2).ok_or_else(|| {
            let known: Vec<_> = NAMES.iter().map(|row| format!("{} = {}", row.1, row.2)).collect();
            Error::usage(format!("unknown sampler letter {letter:?}")).help(format!("known are {}", known.join(", ")))
        })
    };
    Ok(letters.chars().map(name).collect::<Result<Vec<_>>>()?.join(";"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_letters() {
        assert_eq!(order_from_letters("edskypmxt").unwrap(), DEFAULT_ORDER);
        let by_other_names = "penalties;dry;top-n-sigma; top-k ;typical;nucleus;min-p;xtc;temp;";
        assert_eq!(parse(by_other_names).unwrap(), parse(DEFAULT_ORDER).unwrap());
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("temp;temp").unwrap(), [Kind::Temperature; 2]);
        let e = parse("top_k;topk").unwrap_err().to_string();
        assert!(e.contains("\"topk\"") && e.contains("top_n_sigma"), "{e}");
        assert!(order_from_letters("kz").unwrap_err().to_string().contains("'z'"));
    }
}
