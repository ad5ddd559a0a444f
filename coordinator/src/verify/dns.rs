//! TXT records, asked of the system's resolvers: one question, one answer, bounded in
//! bytes and time. What comes back is a stranger's and never believed beyond its text.
//! Names are those of RFC 1035.

use crate::random;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

/// Time for one try; there are at most [`RESOLVERS_MAX`] and one more over TCP.
const TRY: Duration = Duration::from_secs(2);
const RESOLVERS_MAX: usize = 2;
/// Bytes of an answer over UDP without extensions, and over TCP.
const UDP_BYTES_MAX: usize = 512;
const TCP_BYTES_MAX: usize = 16 << 10;
/// Records of one answer that are looked at.
const RECORDS_MAX: u16 = 64;
const HEADER_BYTES: usize = 12;
const TXT: u16 = 16;
const INTERNET: u16 = 1;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error("no name server is named in /etc/resolv.conf")]
    NoResolver,
    #[error("the name is too long for a record")]
    Name,
    #[error("the name server cannot be asked: {0}")]
    Io(#[from] io::Error),
    #[error("the name server answers nonsense")]
    Malformed,
    #[error("the name server answers with code {code}")]
    Refused { code: u8 },
}

/// The name servers of a file like /etc/resolv.conf.
pub fn resolvers(file: &Path) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        // A scope, as in fe80::1%eth0, is not followed.
        words.next()?.parse::<IpAddr>().ok()
    });
    addresses.take(RESOLVERS_MAX).map(|address| SocketAddr::new(address, 53)).collect()
}

/// The texts of a name's TXT records; none where the name has none.
///
/// # Errors
/// [`DnsError`], of the last resolver that was asked.
pub fn texts(resolvers: &[SocketAddr], name: &str) -> Result<Vec<String>, DnsError> {
    let mut last = DnsError::NoResolver;
    for &resolver in resolvers {
        match ask(resolver, name) {
            Ok(texts) => return Ok(texts),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn ask(resolver: SocketAddr, name: &str) -> Result<Vec<String>, DnsError> {
    let [high, low] = random::bytes::<2>();
    let id = u16::from_be_bytes([high, low]);
    let query = question(id, name).ok_or(DnsError::Name)?;
    let local: IpAddr = match resolver {
        SocketAddr::V4(_) => [0, 0, 0, 0].into(),
        SocketAddr::V6(_) => [0u16; 8].into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(local, 0))?;
    // Only the resolver's own datagrams are read from then on.
    socket.connect(resolver)?;
    socket.set_read_timeout(Some(TRY))?;
    socket.send(&query)?;
    let mut bytes = [0; UDP_BYTES_MAX];
    let length = socket.recv(&mut bytes)?;
    let answer = parse(bytes.get(..length).unwrap_or_default(), id)?;
    if !answer.cut_off {
        return Ok(answer.texts);
    }
    Ok(parse(&over_tcp(resolver, &query)?, id)?.texts)
}

fn over_tcp(resolver: SocketAddr, query: &[u8]) -> Result<Vec<u8>, DnsError> {
    let mut stream = TcpStream::connect_timeout(&resolver, TRY)?;
    stream.set_read_timeout(Some(TRY))?;
    stream.set_write_timeout(Some(TRY))?;
    let length = u16::try_from(query.len()).map_err(|_| DnsError::Name)?;
    stream.write_all(&[&length.to_be_bytes()[..], query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > TCP_BYTES_MAX {
        return Err(DnsError::Malformed);
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A query for a name's TXT records; `None` where it is no name.
fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + name.len() + 6);
    bytes.extend(id.to_be_bytes());
    // Recursion desired; one question.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    if bytes.len() - HEADER_BYTES > 255 {
        return None;
    }
    bytes.extend(TXT.to_be_bytes());
    bytes.extend(INTERNET.to_be_bytes());
    Some(bytes)
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    texts: Vec<String>,
    /// Whether it did not fit, and is to be asked for over TCP.
    cut_off: bool,
}

/// Reads an answer. It follows no pointer: names are only skipped.
fn parse(bytes: &[u8], id: u16) -> Result<Answer, DnsError> {
    let bad = || DnsError::Malformed;
    let word = |at: usize| -> Result<u16, DnsError> {
        let pair = bytes.get(at..at + 2).ok_or_else(bad)?;
        Ok(u16::from_be_bytes([pair[0], pair[1]]))
    };
    let flags = word(2)?;
    // An answer, to this question.
    if word(0)? != id || flags & 0x8000 == 0 {
        return Err(bad());
    }
    if flags & 0x0200 != 0 {
        return Ok(Answer { texts: Vec::new(), cut_off: true });
    }
    match (flags & 15) as u8 {
        0 => {}
        // There is no such name.
        3 => return Ok(Answer { texts: Vec::new(), cut_off: false }),
        code => return Err(DnsError::Refused { code }),
    }
    let (questions, records) = (word(4)?, word(6)?);
    if questions > 1 {
        return Err(bad());
    }
    let mut at = HEADER_BYTES;
    for _ in 0..questions {
        at = skip_name(bytes, at)? + 4;
    }
    let mut texts = Vec::new();
    for _ in 0..records.min(RECORDS_MAX) {
        at = skip_name(bytes, at)?;
        let (kind, class, length) = (word(at)?, word(at + 2)?, usize::from(word(at + 8)?));
        let data = bytes.get(at + 10..at + 10 + length).ok_or_else(bad)?;
        at += 10 + length;
        if kind == TXT && class == INTERNET {
            texts.push(text(data)?);
        }
    }
    Ok(Answer { texts, cut_off: false })
}

/// Where a name ends.
fn skip_name(bytes: &[u8], mut at: usize) -> Result<usize, DnsError> {
    loop {
        let length = *bytes.get(at).ok_or(DnsError::Malformed)?;
        match length {
            0 => return Ok(at + 1),
            1..=63 => at += 1 + usize::from(length),
            // A pointer ends a name.
            192.. => return Ok(at + 2),
            _ => return Err(DnsError::Malformed),
        }
    }
}

/// A record's strings as one text.
fn text(mut data: &[u8]) -> Result<String, DnsError> {
    let mut text = Vec::with_capacity(data.len());
    while let Some((&length, rest)) = data.split_first() {
        let part = rest.get(..usize::from(length)).ok_or(DnsError::Malformed)?;
        text.extend(part);
        data = &rest[part.len()..];
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const NAME: &str = "_raven.news.example";

    fn record(texts: &[&str]) -> Vec<u8> {
        let data: Vec<u8> =
            texts.iter().flat_map(|t| [&[t.len() as u8], t.as_bytes()].concat()).collect();
        let mut bytes = vec![0xc0, 12];
        bytes.extend([0, 16, 0, 1, 0, 0, 0, 60]);
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
        bytes
    }

    /// The answer to a query with these records.
    fn answer(query: &[u8], flags: [u8; 2], records: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = query.to_vec();
        bytes[2..4].copy_from_slice(&flags);
        bytes[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        bytes.extend(records.concat());
        bytes
    }

    #[test]
    fn texts_are_read_and_other_answers_are_not() {
        let query = question(7, NAME).expect("a name");
        let good = [0x81, 0x80];
        let two = answer(&query, good, &[record(&["raven-site=", "pk_a"]), record(&["x"])]);
        assert_eq!(parse(&two, 7).expect("read").texts, ["raven-site=pk_a", "x"]);
        assert_eq!(parse(&answer(&query, [0x81, 0x83], &[]), 7).expect("no name").texts.len(), 0);
        assert!(parse(&answer(&query, [0x83, 0x80], &[]), 7).expect("cut off").cut_off);
        assert!(matches!(parse(&two, 8), Err(DnsError::Malformed)), "another question's");
        assert!(matches!(parse(&query, 7), Err(DnsError::Malformed)), "a query");
        let failed = parse(&answer(&query, [0x81, 0x82], &[]), 7);
        assert!(matches!(failed, Err(DnsError::Refused { code: 2 })));
        assert!(question(1, "a..b").is_none() && question(1, &"x".repeat(64)).is_none());
        assert!(question(1, &"abcdefgh.".repeat(30)).is_none());
    }

    #[test]
    fn whatever_comes_back_is_read_or_refused() {
        let query = question(7, NAME).expect("a name");
        let whole = answer(&query, [0x81, 0x80], &[record(&["raven-site=pk_a"]), record(&["b"])]);
        for end in 0..whole.len() {
            let _ = parse(&whole[..end], 7);
        }
        for at in 0..whole.len() {
            for value in [0, 1, 63, 64, 127, 191, 192, 255] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = parse(&bytes, 7);
            }
        }
    }

    #[test]
    fn an_answer_that_is_cut_off_is_asked_for_over_tcp() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = tcp.local_addr().expect("an address");
        let udp = UdpSocket::bind(address).expect("the same port");
        let server = std::thread::spawn(move || {
            let mut query = [0; 512];
            let (length, peer) = udp.recv_from(&mut query).expect("a query");
            udp.send_to(&answer(&query[..length], [0x83, 0x80], &[]), peer).expect("sent");
            let (mut stream, _) = tcp.accept().expect("a connection");
            let mut length = [0; 2];
            stream.read_exact(&mut length).expect("a length");
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut query).expect("a query");
            let bytes = answer(&query, [0x81, 0x80], &[record(&["raven-site=pk_a"])]);
            stream.write_all(&(bytes.len() as u16).to_be_bytes()).expect("sent");
            stream.write_all(&bytes).expect("sent");
        });
        assert_eq!(texts(&[address], NAME).expect("answered"), ["raven-site=pk_a"]);
        server.join().expect("served");
        assert!(matches!(texts(&[], NAME), Err(DnsError::NoResolver)));
    }

    #[test]
    fn name_servers_are_read_from_their_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("resolv.conf");
        let text = "# a\nsearch x\nnameserver 192.0.2.1\nnameserver bad\nnameserver ::1\n\
                    nameserver 192.0.2.2\n";
        std::fs::write(&file, text).expect("written");
        let found: Vec<String> = resolvers(&file).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[::1]:53"]);
        assert!(resolvers(&folder.path().join("none")).is_empty());
    }
}
