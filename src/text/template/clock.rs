//! The date and time a template may ask for, and C's `strftime` for it. The caller gives the time, so that renderings
//! can be repeated.

/// A date and time of day, proleptic Gregorian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Full year.
    pub year: i32,
    /// 1 … 12
    pub month: u8,
    /// 1 … 31
    pub day: u8,
    /// 0 … 23
    pub hour: u8,
    /// 0 … 59
    pub minute: u8,
    /// 0 … 59
    pub second: u8,
}

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl Clock {
    /// The time `seconds` after the start of 1970, UTC. Algorithm: Howard Hinnant's `civil_from_days`.
    pub fn from_unix(seconds: i64) -> Clock {
        let days = seconds.div_euclid(86_400);
        let of_day = seconds.rem_euclid(86_400);
        let from_march_0000 = days + 719_468;
        let era = from_march_0000.div_euclid(146_097);
        let day_of_era = from_march_0000.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Clock {
            year: (year_of_era + era * 400 + (month <= 2) as i64) as i32,
            month: month as u8,
            day: (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u8,
            hour: (of_day / 3600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
        }
    }

    /// The system's time, UTC; the start of 1970 where there is no clock.
    pub fn now() -> Clock {
        let since = web_time::SystemTime::now().duration_since(web_time::UNIX_EPOCH);
        Clock::from_unix(since.map_or(0, |d| d.as_secs() as i64))
    }

    /// Days since the year began, from 1.
    fn day_of_year(&self) -> u32 {
        const BEFORE: [u32; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        let month = usize::from(self.month.clamp(1, 12)) - 1;
        BEFORE[month] + u32::from(self.day) + (leap && month > 1) as u32
    }

    /// 0 is Monday. Algorithm: Tomohiko Sakamoto's.
    fn weekday(&self) -> usize {
        const OFFSETS: [i32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let month = usize::from(self.month.clamp(1, 12)) - 1;
        let year = if month < 2 { self.year - 1 } else { self.year };
        let from_sunday = year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + OFFSETS[month];
        (from_sunday + i32::from(self.day) + 6).rem_euclid(7) as usize
    }

    /// `strftime`; a directive that is not known stays as it is.
    pub fn format(&self, format: &str) -> String {
        let mut out = String::with_capacity(2 * format.len());
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut directive = chars.next();
            // `%-d` of the C library: without padding.
            let bare = directive == Some('-');
            if bare {
                directive = chars.next();
            }
            let text = directive.and_then(|d| self.directive(d));
            match (text, directive) {
                (Some(text), _) if bare => {
                    let short = text.trim_start_matches(['0', ' ']);
                    out.push_str(if short.is_empty() { "0" } else { short });
                }
                (Some(text), _) => out.push_str(&text),
                (None, directive) => {
                    out.push('%');
                    out.extend(bare.then_some('-').into_iter().chain(directive));
                }
            }
        }
        out
    }

    fn directive(&self, directive: char) -> Option<String> {
        let month = MONTHS[usize::from(self.month.clamp(1, 12)) - 1];
        let day = DAYS[self.weekday()];
        let hour12 = (self.hour + 11) % 12 + 1;
        Some(match directive {
            'Y' => format!("{}", self.year),
            'y' => format!("{:02}", self.year.rem_euclid(100)),
            'm' => format!("{:02}", self.month),
            'B' => month.to_string(),
            'b' | 'h' => month[..3].to_string(),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'j' => format!("{:03}", self.day_of_year()),
            'A' => day.to_string(),
            'a' => day[..3].to_string(),
            'u' => format!("{}", self.weekday() + 1),
            'w' => format!("{}", (self.weekday() + 1) % 7),
            'H' => format!("{:02}", self.hour),
            'I' => format!("{hour12:02}"),
            'M' => format!("{:02}", self.minute),
            'S' => format!("{:02}", self.second),
            'f' => "000000".to_string(),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.to_string(),
            'Z' | 'z' => String::new(),
            'F' => self.format("%Y-%m-%d"),
            'T' | 'X' => self.format("%H:%M:%S"),
            'R' => self.format("%H:%M"),
            'D' | 'x' => self.format("%m/%d/%y"),
            'c' => self.format("%a %b %e %H:%M:%S %Y"),
            'n' => "\n".to_string(),
            't' => "\t".to_string(),
            '%' => "%".to_string(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_known_days() {
        let clock = Clock::from_unix(1_795_176_000);
        assert_eq!(clock, Clock { year: 2026, month: 11, day: 20, hour: 12, minute: 0, second: 0 });
        assert_eq!(
            clock.format("%A %a %d %b %B %Y %y %j %u %w %-d|%I %p"),
            "Friday Fri 20 Nov November 2026 26 324 5 5 20|12 PM"
        );
        assert_eq!(Clock::from_unix(951_782_400).format("%F %T %j %e"), "2000-02-29 00:00:00 060 29");
        assert_eq!(Clock::from_unix(-1).format("%F %T %A"), "1969-12-31 23:59:59 Wednesday");
        assert_eq!(Clock::from_unix(0).format("%-d.%-m. %H%% %Q %-Q %"), "1.1. 00% %Q %-Q %");
    }
}
