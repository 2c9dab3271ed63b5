//! Every method of AMQP 0-9-1 with RabbitMQ's extensions, from one table: what it is called, its class and number, its fields in
//! order. Reading and writing follow from that, so the two cannot differ.

use std::fmt;

use super::reader::{Malformed, Reader};
use super::table::Table;
use super::writer::Writer;

/// The class of messages.
pub const BASIC_CLASS: u16 = 60;

/// A string of up to 255 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Short<'a>(pub &'a [u8]);

/// A string of up to 4 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Long<'a>(pub &'a [u8]);

impl fmt::Debug for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.0))
    }
}

impl fmt::Debug for Long<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.0))
    }
}

/// A field of a method.
trait Field<'a>: Sized {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed>;
    fn write(&self, writer: &mut Writer<'_>);
}

macro_rules! plain_fields {
    ($($type:ty, $method:ident;)*) => {$(
        impl<'a> Field<'a> for $type {
            fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
                reader.$method()
            }
            fn write(&self, writer: &mut Writer<'_>) {
                writer.$method(*self);
            }
        }
    )*};
}

plain_fields! {
    bool, bit;
    u8, u8;
    u16, u16;
    u32, u32;
    u64, u64;
    Table<'a>, table;
}

impl<'a> Field<'a> for Short<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.short_string().map(Short)
    }
    fn write(&self, writer: &mut Writer<'_>) {
        writer.short_string(self.0);
    }
}

impl<'a> Field<'a> for Long<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.long_string().map(Long)
    }
    fn write(&self, writer: &mut Writer<'_>) {
        writer.long_string(self.0);
    }
}

macro_rules! methods {
    ($($name:ident $(<$life:lifetime>)? = $class:literal, $id:literal { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            #[doc = concat!("Class ", $class, ", method ", $id, ".")]
            #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
            #[allow(missing_docs, reason = "the fields are the specification's")]
            pub struct $name $(<$life>)? {
                $(pub $field: $type,)*
            }

            impl $(<$life>)? From<$name $(<$life>)?> for methods!(@method $($life)?) {
                fn from(method: $name $(<$life>)?) -> Self {
                    Method::$name(method)
                }
            }
        )*

        /// A method.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[allow(missing_docs, reason = "the names are the specification's")]
        pub enum Method<'a> {
            $($name($name $(<$life>)?),)*
        }

        impl<'a> Method<'a> {
            /// Reads a method behind its class and number; `None` if there is no such method.
            pub fn read(class: u16, id: u16, reader: &mut Reader<'a>) -> Result<Option<Method<'a>>, Malformed> {
                Ok(Some(match (class, id) {
                    $(($class, $id) => Method::$name($name { $($field: Field::read(reader)?,)* }),)*
                    _ => return Ok(None),
                }))
            }

            /// Appends class, number and fields.
            pub fn write(&self, writer: &mut Writer<'_>) {
                let (class, id) = self.class_and_id();
                writer.u16(class);
                writer.u16(id);
                match self {
                    $(Method::$name(method) => {
                        let $name { $($field),* } = method;
                        $(Field::write($field, writer);)*
                    })*
                }
            }

            /// Its class and number.
            pub fn class_and_id(&self) -> (u16, u16) {
                match self {
                    $(Method::$name(_) => ($class, $id),)*
                }
            }

            /// Every class and number that there is.
            pub const ALL: &'static [(u16, u16)] = &[$(($class, $id)),*];
        }
    };
    (@method $life:lifetime) => { Method<$life> };
    (@method) => { Method<'_> };
}

methods! {
    ConnectionStart<'a> = 10, 10 { version_major: u8, version_minor: u8, server_properties: Table<'a>, mechanisms: Long<'a>, locales: Long<'a> }
    ConnectionStartOk<'a> = 10, 11 { client_properties: Table<'a>, mechanism: Short<'a>, response: Long<'a>, locale: Short<'a> }
    ConnectionSecure<'a> = 10, 20 { challenge: Long<'a> }
    ConnectionSecureOk<'a> = 10, 21 { response: Long<'a> }
    ConnectionTune = 10, 30 { channel_max: u16, frame_max: u32, heartbeat: u16 }
    ConnectionTuneOk = 10, 31 { channel_max: u16, frame_max: u32, heartbeat: u16 }
    ConnectionOpen<'a> = 10, 40 { vhost: Short<'a>, capabilities: Short<'a>, insist: bool }
    ConnectionOpenOk<'a> = 10, 41 { known_hosts: Short<'a> }
    ConnectionClose<'a> = 10, 50 { reply_code: u16, reply_text: Short<'a>, class: u16, method: u16 }
    ConnectionCloseOk = 10, 51 {}
    ConnectionBlocked<'a> = 10, 60 { reason: Short<'a> }
    ConnectionUnblocked = 10, 61 {}
    ConnectionUpdateSecret<'a> = 10, 70 { secret: Long<'a>, reason: Short<'a> }
    ConnectionUpdateSecretOk = 10, 71 {}

    ChannelOpen<'a> = 20, 10 { out_of_band: Short<'a> }
    ChannelOpenOk<'a> = 20, 11 { channel_id: Long<'a> }
    ChannelFlow = 20, 20 { active: bool }
    ChannelFlowOk = 20, 21 { active: bool }
    ChannelClose<'a> = 20, 40 { reply_code: u16, reply_text: Short<'a>, class: u16, method: u16 }
    ChannelCloseOk = 20, 41 {}

    AccessRequest<'a> = 30, 10 { realm: Short<'a>, exclusive: bool, passive: bool, active: bool, write: bool, read: bool }
    AccessRequestOk = 30, 11 { ticket: u16 }

    ExchangeDeclare<'a> = 40, 10 { ticket: u16, exchange: Short<'a>, kind: Short<'a>, passive: bool, durable: bool, auto_delete: bool, internal: bool, no_wait: bool, arguments: Table<'a> }
    ExchangeDeclareOk = 40, 11 {}
    ExchangeDelete<'a> = 40, 20 { ticket: u16, exchange: Short<'a>, if_unused: bool, no_wait: bool }
    ExchangeDeleteOk = 40, 21 {}
    ExchangeBind<'a> = 40, 30 { ticket: u16, destination: Short<'a>, source: Short<'a>, routing_key: Short<'a>, no_wait: bool, arguments: Table<'a> }
    ExchangeBindOk = 40, 31 {}
    ExchangeUnbind<'a> = 40, 40 { ticket: u16, destination: Short<'a>, source: Short<'a>, routing_key: Short<'a>, no_wait: bool, arguments: Table<'a> }
    ExchangeUnbindOk = 40, 51 {}

    QueueDeclare<'a> = 50, 10 { ticket: u16, queue: Short<'a>, passive: bool, durable: bool, exclusive: bool, auto_delete: bool, no_wait: bool, arguments: Table<'a> }
    QueueDeclareOk<'a> = 50, 11 { queue: Short<'a>, message_count: u32, consumer_count: u32 }
    QueueBind<'a> = 50, 20 { ticket: u16, queue: Short<'a>, exchange: Short<'a>, routing_key: Short<'a>, no_wait: bool, arguments: Table<'a> }
    QueueBindOk = 50, 21 {}
    QueuePurge<'a> = 50, 30 { ticket: u16, queue: Short<'a>, no_wait: bool }
    QueuePurgeOk = 50, 31 { message_count: u32 }
    QueueDelete<'a> = 50, 40 { ticket: u16, queue: Short<'a>, if_unused: bool, if_empty: bool, no_wait: bool }
    QueueDeleteOk = 50, 41 { message_count: u32 }
    QueueUnbind<'a> = 50, 50 { ticket: u16, queue: Short<'a>, exchange: Short<'a>, routing_key: Short<'a>, arguments: Table<'a> }
    QueueUnbindOk = 50, 51 {}

    BasicQos = 60, 10 { prefetch_size: u32, prefetch_count: u16, global: bool }
    BasicQosOk = 60, 11 {}
    BasicConsume<'a> = 60, 20 { ticket: u16, queue: Short<'a>, consumer_tag: Short<'a>, no_local: bool, no_ack: bool, exclusive: bool, no_wait: bool, arguments: Table<'a> }
    BasicConsumeOk<'a> = 60, 21 { consumer_tag: Short<'a> }
    BasicCancel<'a> = 60, 30 { consumer_tag: Short<'a>, no_wait: bool }
    BasicCancelOk<'a> = 60, 31 { consumer_tag: Short<'a> }
    BasicPublish<'a> = 60, 40 { ticket: u16, exchange: Short<'a>, routing_key: Short<'a>, mandatory: bool, immediate: bool }
    BasicReturn<'a> = 60, 50 { reply_code: u16, reply_text: Short<'a>, exchange: Short<'a>, routing_key: Short<'a> }
    BasicDeliver<'a> = 60, 60 { consumer_tag: Short<'a>, delivery_tag: u64, redelivered: bool, exchange: Short<'a>, routing_key: Short<'a> }
    BasicGet<'a> = 60, 70 { ticket: u16, queue: Short<'a>, no_ack: bool }
    BasicGetOk<'a> = 60, 71 { delivery_tag: u64, redelivered: bool, exchange: Short<'a>, routing_key: Short<'a>, message_count: u32 }
    BasicGetEmpty<'a> = 60, 72 { cluster_id: Short<'a> }
    BasicAck = 60, 80 { delivery_tag: u64, multiple: bool }
    BasicReject = 60, 90 { delivery_tag: u64, requeue: bool }
    BasicRecoverAsync = 60, 100 { requeue: bool }
    BasicRecover = 60, 110 { requeue: bool }
    BasicRecoverOk = 60, 111 {}
    BasicNack = 60, 120 { delivery_tag: u64, multiple: bool, requeue: bool }

    ConfirmSelect = 85, 10 { no_wait: bool }
    ConfirmSelectOk = 85, 11 {}

    TxSelect = 90, 10 {}
    TxSelectOk = 90, 11 {}
    TxCommit = 90, 20 {}
    TxCommitOk = 90, 21 {}
    TxRollback = 90, 30 {}
    TxRollbackOk = 90, 31 {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_comes_back_as_it_was_written() {
        for (class, id) in Method::ALL {
            // Zeros are empty strings and tables, and numbers.
            let zeros = [0; 64];
            let method = Method::read(*class, *id, &mut Reader::new(&zeros)).unwrap().unwrap();
            assert_eq!(method.class_and_id(), (*class, *id));
            let mut bytes = Vec::new();
            method.write(&mut Writer::new(&mut bytes));
            let mut reader = Reader::new(&bytes[4..]);
            assert_eq!(Method::read(*class, *id, &mut reader), Ok(Some(method)));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn bytes_are_the_specifications() {
        let method = Method::from(BasicNack { delivery_tag: 7, multiple: false, requeue: true });
        let mut bytes = Vec::new();
        Writer::new(&mut bytes).method(3, &method);
        assert_eq!(bytes, b"\x01\x00\x03\x00\x00\x00\x0D\x00\x3C\x00\x78\0\0\0\0\0\0\0\x07\x02\xCE");
    }
}
