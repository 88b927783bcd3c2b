//! Reading a request's body: bounded in bytes and time, and decoded from its content coding.
//!
//! Guarantees: more than the bound *after* decoding is found while decoding, so a bomb costs at most the bound; every
//! byte held is admitted first; at most two codings are stacked; nothing is decoded or moved for long without letting others run. A
//! body that ends early, or is not what its coding says, is an error and never a shorter body.

use std::io::Write;
use std::pin::pin;

use axum::body::{Body, HttpBody};
use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};

use crate::config::LimitsConfig;
use crate::error::{ApiError, Code};
use crate::limits::{Admission, Hold};
use crate::negotiate::Coding;
use crate::pace::{self, Pace};

/// Most codings of one body.
const MAX_CODINGS: usize = 2;
/// What a coding may add to a body that it cannot make smaller, in bytes.
const CODING_ROOM: usize = 1024 * 1024;
/// Encoded bytes decoded at a time: at most about 4 MiB come out, in a few milliseconds.
const SLICE: usize = 4096;
/// The largest window that a zstd body may ask for: 8 MiB (RFC 9659).
const ZSTD_WINDOW_LOG: u32 = 23;

/// A body, and the admission of its bytes.
#[derive(Debug, Default)]
pub struct Received {
    /// The bytes, decoded.
    pub bytes: Bytes,
    /// To be kept for as long as they are used.
    pub hold: Hold,
}

/// Reads a body of at most `limit` decoded bytes.
///
/// # Errors
/// 400, 408, 413, 415 or 503, as the error table has them.
pub async fn read(
    (admission, limits): (&Admission, &LimitsConfig),
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Received, ApiError> {
    let codings = codings(headers)?;
    let raw_limit = if codings.is_empty() {
        limit
    } else {
        limit.saturating_add(CODING_ROOM)
    };
    let mut received = collect((admission, limits), body, raw_limit).await?;
    if received.bytes.is_empty() {
        return Ok(received);
    }
    // The last coding named was applied last.
    for (left, coding) in codings.iter().enumerate().rev() {
        let limit = if left == 0 {
            limit
        } else {
            limit.saturating_add(CODING_ROOM)
        };
        received = decode(admission, &received, *coding, limit).await?;
    }
    Ok(received)
}

fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, ApiError> {
    let unsupported = || {
        let ours = HeaderValue::from_static("gzip, zstd");
        ApiError::from(Code::UnsupportedCoding).header(header::ACCEPT_ENCODING, ours)
    };
    let mut codings = Vec::new();
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let value = value.to_str().map_err(|_not_ascii| unsupported())?;
        for name in value
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            match Coding::named(name).ok_or_else(unsupported)? {
                Coding::Identity => {}
                coding if codings.len() < MAX_CODINGS => codings.push(coding),
                Coding::Gzip | Coding::Zstd => return Err(unsupported()),
            }
        }
    }
    Ok(codings)
}

async fn collect(
    (admission, limits): (&Admission, &LimitsConfig),
    body: Body,
    limit: usize,
) -> Result<Received, ApiError> {
    let declared = body.size_hint().lower();
    if usize::try_from(declared).map_or(true, |length| length > limit) {
        return Err(Code::BodyTooLarge.into());
    }
    let end = Instant::now() + limits.body_timeout;
    let mut body = pin!(body);
    let (mut hold, mut pace) = (Hold::default(), Pace::default());
    // The first frame is often all there is: then nothing is copied.
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let until = end.min(Instant::now() + limits.body_idle_timeout);
        let frame = timeout_at(until, body.frame()).await;
        let Some(frame) = frame.map_err(|_late| ApiError::from(Code::RequestTimeout))? else {
            break;
        };
        let frame = frame.map_err(|_cut| ApiError::from(Code::BodyIncomplete))?;
        // Trailers say nothing that we use.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let length = first
            .len()
            .saturating_add(rest.len())
            .saturating_add(data.len());
        if length > limit {
            return Err(Code::BodyTooLarge.into());
        }
        admission.grow(&mut hold, length)?;
        if first.is_empty() && rest.is_empty() {
            first = data.clone();
        } else {
            if rest.is_empty() {
                // Room for what was announced costs memory only as it is filled.
                rest.reserve(usize::try_from(declared).unwrap_or(0).max(length));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
        pace.moved(data.len());
        pace.rested().await;
    }
    let bytes = if rest.is_empty() {
        first
    } else {
        rest.freeze()
    };
    Ok(Received { bytes, hold })
}

async fn decode(
    admission: &Admission,
    encoded: &Received,
    coding: Coding,
    limit: usize,
) -> Result<Received, ApiError> {
    let mut decoder = Decoder::new(coding)?;
    let mut out = Vec::new();
    let mut hold = Hold::default();
    for slice in encoded.bytes.chunks(SLICE) {
        decoder.write(slice, &mut out, limit)?;
        admission.grow(&mut hold, out.capacity())?;
        tokio::task::consume_budget().await;
        if out.len() > limit {
            return Err(Code::BodyTooLarge.into());
        }
    }
    decoder.finish(&mut out)?;
    if out.len() > limit {
        return Err(Code::BodyTooLarge.into());
    }
    admission.grow(&mut hold, out.capacity())?;
    Ok(Received {
        bytes: out.into(),
        hold,
    })
}

enum Decoder {
    Gzip(Box<flate2::write::MultiGzDecoder<Vec<u8>>>),
    Zstd {
        decoder: ZstdDecoder<'static>,
        whole: bool,
    },
}

impl Decoder {
    fn new(coding: Coding) -> Result<Self, ApiError> {
        if coding == Coding::Gzip {
            let decoder = flate2::write::MultiGzDecoder::new(Vec::new());
            return Ok(Self::Gzip(Box::new(decoder)));
        }
        let internal = |_no_memory| ApiError::from(Code::Internal);
        let mut decoder = ZstdDecoder::new().map_err(internal)?;
        decoder
            .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))
            .map_err(internal)?;
        Ok(Self::Zstd {
            decoder,
            whole: false,
        })
    }

    /// Decodes a slice; stops early above the limit.
    fn write(&mut self, slice: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), ApiError> {
        match self {
            Self::Gzip(decoder) => {
                decoder.write_all(slice).map_err(broken)?;
                out.append(decoder.get_mut());
                Ok(())
            }
            Self::Zstd { decoder, whole } => {
                let mut input = InBuffer::around(slice);
                let mut buffer = [0_u8; 16 * 1024];
                loop {
                    let before = input.pos();
                    let mut output = OutBuffer::around(&mut buffer[..]);
                    let hint = decoder.run(&mut input, &mut output).map_err(broken)?;
                    let made = output.as_slice();
                    out.extend_from_slice(made);
                    if made.is_empty() && input.pos() == before {
                        return Ok(());
                    }
                    *whole = hint == 0;
                    if out.len() > limit {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn finish(self, out: &mut Vec<u8>) -> Result<(), ApiError> {
        match self {
            Self::Gzip(decoder) => {
                out.append(&mut decoder.finish().map_err(broken)?);
                Ok(())
            }
            Self::Zstd { whole: true, .. } => Ok(()),
            Self::Zstd { whole: false, .. } => Err(Code::InvalidCoding.into()),
        }
    }
}

fn broken(_error: std::io::Error) -> ApiError {
    Code::InvalidCoding.into()
}

/// An answer's body: parts one after another, at the pace of a large one, whose admission ends when it is sent or dropped.
pub(crate) struct Outgoing {
    parts: std::collections::VecDeque<Bytes>,
    left: u64,
    pace: Pace,
    _hold: Hold,
}

impl Outgoing {
    pub(crate) fn new(parts: Vec<Bytes>, hold: Hold) -> Self {
        let left = parts.iter().map(|part| part.len() as u64).sum();
        Self {
            parts: parts
                .into_iter()
                .filter(|part| part.has_remaining())
                .collect(),
            left,
            pace: Pace::default(),
            _hold: hold,
        }
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::ready!(self.pace.poll_rested(context));
        let Some(part) = self.parts.front_mut() else {
            return std::task::Poll::Ready(None);
        };
        let slice = part.split_to(part.len().min(pace::SLICE));
        if part.is_empty() {
            self.parts.pop_front();
        }
        self.left = self.left.saturating_sub(slice.len() as u64);
        self.pace.moved(slice.len());
        std::task::Poll::Ready(Some(Ok(http_body::Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_comes_in_slices_whole_and_in_order_and_says_its_length() {
        let text: Bytes = (0..=250_u8).cycle().take(3_000_000).collect();
        let parts = vec![
            text.slice(..10),
            Bytes::new(),
            text.slice(10..2_900_000),
            text.slice(2_900_000..),
        ];
        let mut body = Outgoing::new(parts, Hold::default());
        assert_eq!(body.size_hint().exact(), Some(3_000_000));
        let (began, mut whole) = (Instant::now(), Vec::new());
        while let Some(frame) = body.frame().await {
            let slice = frame.unwrap().into_data().unwrap();
            assert!(!slice.is_empty() && slice.len() <= pace::SLICE);
            whole.extend_from_slice(&slice);
            let left = 3_000_000 - whole.len() as u64;
            assert_eq!(body.size_hint().exact(), Some(left));
        }
        assert!(body.is_end_stream() && text == whole);
        assert!(
            !began.elapsed().is_zero(),
            "it rested after the first mebibyte"
        );
    }
}
