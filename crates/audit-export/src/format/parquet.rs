//! Apache Parquet: the columns of [`super::columns`], typed, compressed with Snappy.
//!
//! A row group is held until it has [`ROW_GROUP_ROWS_MAX`] rows or about [`ROW_GROUP_BYTES_MAX`] bytes of texts; then
//! it is written and forgotten. What grows with the file is its footer: a few kilobytes for each row group. A file
//! without its footer cannot be opened by any reader, so one that was cut off is not taken for a whole one.

use super::columns::{COLUMNS, Cell, Column, Kind};
use super::{EncodeError, Encoder, Format};
use crate::context::{LogInfo, SessionContext};
use crate::limits::{ROW_GROUP_BYTES_MAX, ROW_GROUP_ROWS_MAX, STATISTICS_MAX};
use crate::row::Row;
use crate::text::Texts;
use audit_store::StoredEntry;
use parking_lot::Mutex;
use parquet::basic::{Compression, ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;
use std::io::{self, Write};
use std::sync::Arc;

/// The values of one column in the row group that is being filled.
enum Values {
    Numbers(Vec<i64>),
    Texts(Vec<ByteArray>),
    Truths(Vec<bool>),
}

/// One column of it: values, and for each row whether it has one (1) or not (0).
struct Chunk {
    values: Values,
    levels: Vec<i16>,
}

impl Chunk {
    fn new(kind: Kind) -> Self {
        let values = match kind {
            Kind::Number | Kind::Time => Values::Numbers(Vec::new()),
            Kind::Text => Values::Texts(Vec::new()),
            Kind::Truth => Values::Truths(Vec::new()),
        };
        Self { values, levels: Vec::new() }
    }

    /// Adds a row's value; how many bytes of text it is. A number beyond 63 bits is its last 64 bits, as unsigned
    /// columns of Parquet are.
    fn add(&mut self, cell: Cell<'_>) -> usize {
        let mut bytes = 0;
        let there = match (&mut self.values, cell) {
            (Values::Numbers(list), Cell::Number(Some(number))) => {
                list.push(number.cast_signed());
                true
            }
            (Values::Numbers(list), Cell::Time(micros)) => {
                list.push(micros);
                true
            }
            (Values::Texts(list), Cell::Text(Some(text))) => {
                bytes = text.len();
                list.push(ByteArray::from(text.into_owned().into_bytes()));
                true
            }
            (Values::Truths(list), Cell::Truth(Some(truth))) => {
                list.push(truth);
                true
            }
            (Values::Numbers(_) | Values::Texts(_) | Values::Truths(_), _) => false,
        };
        self.levels.push(i16::from(there));
        bytes
    }

    fn write(&self, column: &Column, writer: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        let levels = (!column.required).then_some(&self.levels[..]);
        match &self.values {
            Values::Numbers(list) => writer.typed::<Int64Type>().write_batch(list, levels, None)?,
            Values::Texts(list) => writer.typed::<ByteArrayType>().write_batch(list, levels, None)?,
            Values::Truths(list) => writer.typed::<BoolType>().write_batch(list, levels, None)?,
        };
        Ok(())
    }
}

/// Where the library writes: [`Parquet`] takes it from here.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) struct Parquet {
    log: LogInfo,
    texts: Texts,
    shared: Shared,
    /// Made with the first byte, gone with the last one.
    writer: Option<SerializedFileWriter<Shared>>,
    chunks: Vec<Chunk>,
    rows: usize,
    bytes: usize,
    last: u64,
}

fn fresh() -> Vec<Chunk> {
    COLUMNS.iter().map(|column| Chunk::new(column.kind)).collect()
}

fn schema() -> Result<Type, ParquetError> {
    let field = |column: &Column| {
        let repetition = if column.required { Repetition::REQUIRED } else { Repetition::OPTIONAL };
        let (physical, logical) = match column.kind {
            Kind::Number => (Physical::INT64, Some(LogicalType::integer(64, false))),
            Kind::Time => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
            Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Kind::Truth => (Physical::BOOLEAN, None),
        };
        let builder = Type::primitive_type_builder(column.name, physical).with_repetition(repetition);
        builder.with_logical_type(logical).with_converted_type(ConvertedType::NONE).build().map(Arc::new)
    };
    let fields = COLUMNS.iter().map(field).collect::<Result<Vec<_>, _>>()?;
    Type::group_type_builder("audit_log").with_fields(fields).build()
}

impl Parquet {
    pub(super) fn new(log: LogInfo, texts: Texts) -> Self {
        let shared = Shared::default();
        Self { log, texts, shared, writer: None, chunks: fresh(), rows: 0, bytes: 0, last: 0 }
    }

    fn open(&self) -> Result<SerializedFileWriter<Shared>, ParquetError> {
        let about = [("sallyport.log_id", &self.log.id), ("sallyport.version", &self.log.version)];
        let about = about.map(|(key, value)| KeyValue::new(key.to_owned(), value.clone())).to_vec();
        let properties = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_compression(Compression::SNAPPY)
            .set_created_by(format!("sallyport {}", self.log.version))
            .set_statistics_truncate_length(Some(STATISTICS_MAX))
            .set_column_index_truncate_length(Some(STATISTICS_MAX))
            .set_key_value_metadata(Some(about))
            .build();
        SerializedFileWriter::new(self.shared.clone(), Arc::new(schema()?), Arc::new(properties))
    }

    fn writer(&mut self) -> Result<&mut SerializedFileWriter<Shared>, ParquetError> {
        if self.writer.is_none() {
            self.writer = Some(self.open()?);
        }
        self.writer.as_mut().ok_or_else(|| ParquetError::General("no writer".to_owned()))
    }

    /// Writes the row group that was filled.
    fn flush(&mut self) -> Result<(), ParquetError> {
        let chunks = std::mem::replace(&mut self.chunks, fresh());
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let writer = self.writer()?;
        if rows == 0 {
            return Ok(());
        }
        let mut group = writer.next_row_group()?;
        for (column, chunk) in COLUMNS.iter().zip(&chunks) {
            if let Some(mut writer) = group.next_column()? {
                chunk.write(column, &mut writer)?;
                writer.close()?;
            }
        }
        group.close()?;
        Ok(())
    }

    fn close(&mut self) -> Result<(), ParquetError> {
        self.flush()?;
        if let Some(writer) = self.writer.take() {
            writer.close()?;
        }
        Ok(())
    }

    fn hand_over(&mut self, done: Result<(), ParquetError>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.append(&mut self.shared.0.lock());
        done.map_err(|error| EncodeError { index: self.last, format: Format::Parquet, why: error.to_string() })
    }
}

impl Encoder for Parquet {
    fn entry(&mut self, session: Option<&SessionContext>, stored: &StoredEntry, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let row = Row::new(stored, session, self.texts);
        self.last = row.index;
        for (column, chunk) in COLUMNS.iter().zip(&mut self.chunks) {
            self.bytes += chunk.add((column.value)(&row));
        }
        self.rows += 1;
        if self.rows < ROW_GROUP_ROWS_MAX && self.bytes < ROW_GROUP_BYTES_MAX {
            return Ok(());
        }
        let done = self.flush();
        self.hand_over(done, out)
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let done = self.close();
        self.hand_over(done, out)
    }
}
