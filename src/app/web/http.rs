//! As much of HTTP as the page needs: GET and HEAD of whole files and of one range, one request per connection.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::Duration;

/// Bytes that the head of a request may have.
const MAX_HEAD: u64 = 16 << 10;
/// Patience with whoever asks and does not go on.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked for.
pub struct Request {
    /// `GET` or `HEAD`.
    pub method: String,
    /// Without the query; as it stands, with its escapes.
    pub path: String,
    /// The value of `Range`.
    pub range: Option<String>,
    host: Option<String>,
}

/// What there is.
pub enum Found<'a> {
    /// A file.
    File(&'a Path),
    /// A text and its type.
    Text(&'a str, &'static str),
}

/// Knows what can be asked for.
pub trait Site {
    /// What a request means, if anything.
    fn find(&self, request: &Request) -> Option<Found<'_>>;
}

/// Answers what a connection asks. A browser that goes away in the middle is nobody's failure.
pub fn serve(stream: TcpStream, port: u16, site: &dyn Site) {
    let _ = answer(&stream, port, site);
    // What was sent and is not read would reset the connection, perhaps before the answer is heard.
    let _ = stream.shutdown(Shutdown::Write);
    let _ = io::copy(&mut (&stream).take(16 * MAX_HEAD), &mut io::sink());
}

fn answer(mut stream: &TcpStream, port: u16, site: &dyn Site) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?.take(MAX_HEAD));
    let Some(request) = read(&mut reader)? else { return head(stream, "400 Bad Request", &[], 0) };
    // Pages of other hosts whose name was made to mean this computer get nothing.
    let here = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    if request.host.as_ref().is_none_or(|host| !here.contains(host)) {
        return head(stream, "403 Forbidden", &[], 0);
    }
    if request.method != "GET" && request.method != "HEAD" {
        return head(stream, "405 Method Not Allowed", &["Allow: GET, HEAD".into()], 0);
    }
    match site.find(&request) {
        None => head(stream, "404 Not Found", &[], 0),
        Some(Found::Text(text, kind)) => {
            head(stream, "200 OK", &[format!("Content-Type: {kind}")], text.len() as u64)?;
            if request.method == "GET" { stream.write_all(text.as_bytes()) } else { Ok(()) }
        }
        Some(Found::File(path)) => send(stream, &request, path),
    }
}

fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let path = path.split('?').next().unwrap_or_default().to_owned();
    let mut request = Request { method: method.to_owned(), path, range: None, host: None };
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            // It ended, or went on for too long, before the empty line.
            return Ok(None);
        }
        let Some((name, value)) = line.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value.trim().to_owned()),
            "host" => request.host = Some(value.trim().to_ascii_lowercase()),
            _ => {}
        }
    }
    Ok(Some(request))
}

fn send(stream: &TcpStream, request: &Request, path: &Path) -> io::Result<()> {
    let Ok(mut file) = File::open(path) else { return head(stream, "404 Not Found", &[], 0) };
    let meta = file.metadata()?;
    let length = meta.len();
    let changed = meta.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
    let mut fields = vec![
        format!("Content-Type: {}", kind(path)),
        "Accept-Ranges: bytes".into(),
        format!("ETag: \"{length:x}-{:x}\"", changed.map_or(0, |t| t.as_millis())),
    ];
    let (status, first, count) = match request.range.as_deref().map(|r| range(r, length)) {
        None => ("200 OK", 0, length),
        Some(None) => {
            return head(stream, "416 Range Not Satisfiable", &[format!("Content-Range: bytes */{length}")], 0);
        }
        Some(Some((first, count))) => {
            fields.push(format!("Content-Range: bytes {first}-{}/{length}", first + count - 1));
            ("206 Partial Content", first, count)
        }
    };
    head(stream, status, &fields, count)?;
    if request.method == "GET" {
        file.seek(SeekFrom::Start(first))?;
        io::copy(&mut file.take(count), &mut &*stream)?;
    }
    Ok(())
}

/// First byte and number of bytes that `bytes=A-B`, `bytes=A-` or `bytes=-N` means in a file of `length`.
fn range(text: &str, length: u64) -> Option<(u64, u64)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = match (from.parse::<u64>().ok(), to.parse::<u64>().ok()) {
        (Some(first), Some(last)) => (first, last.min(length.checked_sub(1)?)),
        (Some(first), None) if to.is_empty() => (first, length.checked_sub(1)?),
        (None, Some(count)) if from.is_empty() => (length - count.min(length), length.checked_sub(1)?),
        _ => return None,
    };
    (first <= last).then(|| (first, last - first + 1))
}

fn kind(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()).unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}

fn head(mut stream: &TcpStream, status: &str, fields: &[String], length: u64) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n");
    text += "Cache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\nCross-Origin-Opener-Policy: same-origin\r\n";
    text += "Referrer-Policy: no-referrer\r\n";
    fields.iter().for_each(|field| text += &format!("{field}\r\n"));
    stream.write_all((text + "\r\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_of_what_there_is() {
        for (text, want) in [
            ("bytes=0-3", Some((0, 4))),
            ("bytes=90-", Some((90, 10))),
            ("bytes=90-200", Some((90, 10))),
            ("bytes=-10", Some((90, 10))),
            ("bytes=-200", Some((0, 100))),
            ("bytes=100-", None),
            ("bytes=5-4", None),
            ("bytes=0-3,5-6", None),
            ("words=0-3", None),
        ] {
            assert_eq!(range(text, 100), want, "{text}");
        }
        assert_eq!(range("bytes=0-", 0), None);
    }
}
