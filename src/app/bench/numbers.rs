//! Lists of numbers as llama-bench reads them: `512`, `16,32`, `1-4`, `16-64+16`, `16-512*2`.

use crate::base::{Error, Result};
use std::str::FromStr;

/// One flag's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers(pub Vec<u32>);

/// A list from which nobody sees the end was not meant.
const MOST: usize = 1000;

impl FromStr for Numbers {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut all = Vec::new();
        for item in text.split(',') {
            let range = range(item.trim()).filter(|r| all.len() + r.len() <= MOST);
            all.extend(range.ok_or_else(|| {
                Error::usage(
                    "write numbers separated by commas, or ranges: FIRST-LAST, FIRST-LAST+STEP, FIRST-LAST*FACTOR",
                )
            })?);
        }
        Ok(Numbers(all))
    }
}

fn range(item: &str) -> Option<Vec<u32>> {
    let Some((first, rest)) = item.split_once('-') else { return Some(vec![item.parse().ok()?]) };
    let (last, next): (&str, Box<dyn Fn(u64) -> u64>) = match rest.split_once(['+', '*']) {
        None => (rest, Box::new(|n| n + 1)),
        Some((last, step)) => {
            let step: u64 = step.parse().ok()?;
            if rest.contains('+') { (last, Box::new(move |n| n + step)) } else { (last, Box::new(move |n| n * step)) }
        }
    };
    let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
    let mut all = Vec::new();
    let mut n = u64::from(first);
    while n <= u64::from(last) {
        all.push(n as u32);
        // A step of 0 or a factor of 1 would never end.
        if next(n) <= n || all.len() > MOST {
            return None;
        }
        n = next(n);
    }
    (!all.is_empty()).then_some(all)
}

/// Prompt and answer of one test, `512,128`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair(pub u32, pub u32);

impl FromStr for Pair {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let pair = text.split_once(',').and_then(|(p, n)| Some(Pair(p.trim().parse().ok()?, n.trim().parse().ok()?)));
        pair.filter(|p| p.0 > 0 && p.1 > 0).ok_or_else(|| Error::usage("write PROMPT,ANSWER, as in 512,128"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_are_read() {
        let read = |text: &str| text.parse::<Numbers>().unwrap().0;
        assert_eq!(read("512"), [512]);
        assert_eq!(read("0,16, 32"), [0, 16, 32]);
        assert_eq!(read("1-4"), [1, 2, 3, 4]);
        assert_eq!(read("16-64+16,5"), [16, 32, 48, 64, 5]);
        assert_eq!(read("16-100*2"), [16, 32, 64]);
        for wrong in ["", "a", "1,,2", "4-1", "1-4+0", "1-4*1", "0-4*2", "1-100000", "-1", "1-4/2", "99999999999"] {
            assert!(wrong.parse::<Numbers>().is_err(), "{wrong:?}");
        }
        assert_eq!("512, 128".parse::<Pair>().unwrap(), Pair(512, 128));
        assert!("512".parse::<Pair>().is_err() && "512,0".parse::<Pair>().is_err() && "1,2,3".parse::<Pair>().is_err());
    }
}
