//! Mail to people: who sends it is behind a trait. One writes each message to a folder,
//! from which a person or another program takes it ([`FolderMailer`]); the other takes
//! it from there itself and hands it over by SMTP ([`Outbox`]).

mod outbox;
mod relay;

pub use outbox::{Outbox, Pace};
pub use relay::{Authorities, Login, Relay, RelayError, Security};

use crate::random;
use crate::time::UnixMs;
use futures_util::future::BoxFuture;
use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Bytes of an address (RFC 5321, 4.5.3.1), and of what stands before its @.
const ADDRESS_BYTES_MAX: usize = 254;
const LOCAL_BYTES_MAX: usize = 64;

/// An address as it was given. Whether somebody reads it is known once a link was followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmailAddress(String);

/// Why a text is not taken for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("has {found} bytes, at most {ADDRESS_BYTES_MAX} are taken")]
    TooLong { found: usize },
    #[error("must be a name, an @ and a domain with a dot, in ASCII, without spaces or quotes")]
    Form,
}

impl EmailAddress {
    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands behind the @.
    pub fn domain(&self) -> &str {
        self.0.split_once('@').map_or("", |(_, domain)| domain)
    }
}

/// A subset of what RFC 5321 allows: no quoted names, no comments, no addresses
/// of numbers, nothing that could end a line of a message's head.
impl FromStr for EmailAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > ADDRESS_BYTES_MAX {
            return Err(AddressError::TooLong { found: text.len() });
        }
        let (local, domain) = text.split_once('@').ok_or(AddressError::Form)?;
        let in_local =
            |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+-/=?^_`{|}~".contains(&byte);
        let is_local = (1..=LOCAL_BYTES_MAX).contains(&local.len()) && local.bytes().all(in_local);
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let is_domain = domain.contains('.') && domain.split('.').all(is_label);
        if is_local && is_domain {
            Ok(EmailAddress(text.to_owned()))
        } else {
            Err(AddressError::Form)
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    pub to: EmailAddress,
    /// One line.
    pub subject: &'static str,
    pub text: String,
}

/// A message that was not taken.
#[derive(Debug, thiserror::Error)]
#[error("mail: {0}")]
pub struct MailError(#[from] pub io::Error);

/// Whoever takes messages and brings them to their readers.
pub trait Mailer: fmt::Debug + Send + Sync {
    /// Takes a message; it is durable when this returns.
    ///
    /// # Errors
    /// [`MailError`].
    fn send(&self, mail: Mail) -> BoxFuture<'_, Result<(), MailError>>;

    /// What became of messages since the process began, as far as this one knows.
    fn counts(&self) -> LetterCounts {
        LetterCounts::default()
    }
}

/// What became of letters that were taken to bring them to a relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LetterCounts {
    pub sent: u64,
    /// By the relay, for good.
    pub refused: u64,
    /// After the last offer, or because they were too old.
    pub given_up: u64,
    /// Offers that came to nothing, of letters that are offered again.
    pub put_off: u64,
}

/// Writes each message to a file of its own, readable by its owner only.
#[derive(Clone, Debug)]
pub struct FolderMailer {
    folder: PathBuf,
}

impl FolderMailer {
    /// Makes the folder where it is missing.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn open(folder: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(FolderMailer { folder: folder.to_owned() })
    }
}

impl Mailer for FolderMailer {
    fn send(&self, mail: Mail) -> BoxFuture<'_, Result<(), MailError>> {
        let folder = self.folder.clone();
        Box::pin(async move {
            let written = tokio::task::spawn_blocking(move || write(&folder, &mail)).await;
            written.map_err(|error| MailError(io::Error::other(error)))??;
            Ok(())
        })
    }
}

fn write(folder: &Path, mail: &Mail) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    // In the order in which they were sent.
    let name = format!("{:013}-{}.eml", UnixMs::now().0, random::base32(&random::bytes::<10>()));
    let partial = folder.join(format!(".{name}"));
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&partial)?;
    write!(
        file,
        "To: {}\r\nSubject: {}\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{}",
        mail.to.as_str(),
        mail.subject,
        mail.text
    )?;
    file.sync_all()?;
    std::fs::rename(&partial, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_as_they_are_or_refused() {
        let long = format!("{}@example.org", "a".repeat(64));
        for text in ["ann@example.org", "Ann.B+x@mail.example.co", long.as_str()] {
            assert_eq!(text.parse::<EmailAddress>().expect(text).as_str(), text);
        }
        let longer = format!("{}@example.org", "a".repeat(65));
        for text in [
            "",
            "ann",
            "@example.org",
            "ann@",
            "ann@localhost",
            "ann@-x.org",
            "ann@x..org",
            "a b@x.org",
            "ann@x.org\r\nBcc: b@x.org",
            "\"a\"@x.org",
            "ann@x.org>",
            "änn@x.org",
            "ann@[1.2.3.4]",
            "a@b@x.org",
            longer.as_str(),
        ] {
            assert_eq!(text.parse::<EmailAddress>(), Err(AddressError::Form), "{text:?}");
        }
        let far = format!("a@{}.org", "b.".repeat(150));
        assert!(matches!(far.parse::<EmailAddress>(), Err(AddressError::TooLong { .. })));
    }

    #[tokio::test]
    async fn a_message_is_a_file_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let mailer = FolderMailer::open(&folder.path().join("mail")).expect("a folder");
        let to = "ann@example.org".parse().expect("an address");
        mailer.send(Mail { to, subject: "Hello", text: "a line".into() }).await.expect("written");
        let files: Vec<_> = std::fs::read_dir(folder.path().join("mail"))
            .expect("a folder")
            .map(|file| file.expect("a file").path())
            .collect();
        assert_eq!(files.len(), 1, "{files:?}");
        let mode = std::fs::metadata(&files[0]).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&files[0]).expect("text");
        assert!(text.starts_with("To: ann@example.org\r\nSubject: Hello\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\na line"), "{text}");
    }
}
