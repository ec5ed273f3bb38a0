// SPDX-License-Identifier: MIT
#include <string>

#include "spec.h"
#include "ts/kv_events.h"

using namespace ts;
using namespace std::string_literals;

namespace {

const std::vector<Token> kFirst{1, 300};
const std::vector<Token> kSecond{70000, 2};

std::string batch(std::size_t events, const std::string& body, char dp_rank = '\0') {
  return "\x93\xcb\x3f\xf0\0\0\0\0\0\0"s + static_cast<char>(0x90 | events) + body + dp_rank;
}

std::string text(const std::string& word) {
  return static_cast<char>(0xa0 | word.size()) + word;
}

const std::string kStored = text("type") + text("BlockStored") + text("block_hashes");

}  // namespace

SPEC("a stored page is one tagged map in the consumer's words") {
  KvEventLog log(true, 2, 3);
  log.stored(5, std::nullopt, kFirst, "");
  EXPECT(log.drain(1.0) == batch(1,
                                 "\x86"s + kStored + "\x91\x05" + text("parent_block_hash") +
                                     "\xc0" + text("token_ids") + "\x92\x01\xd2\0\0\x01\x2c"s +
                                     text("block_size") + "\x02" + text("medium") + text("GPU"),
                                 '\x03'));
  EXPECT(log.empty());
}

SPEC("a chain of stored pages is one event") {
  KvEventLog log(true, 2, 0);
  log.stored(5, std::nullopt, kFirst, "");
  log.stored(6, 5, kSecond, "");
  EXPECT(log.drain(1.0) ==
         batch(1, "\x86"s + kStored + "\x92\x05\x06" + text("parent_block_hash") + "\xc0" +
                      text("token_ids") + "\x94\x01\xd2\0\0\x01\x2c\xd2\0\x01\x11\x70\x02"s +
                      text("block_size") + "\x02" + text("medium") + text("GPU")));
}

SPEC("pages of two chains are two events, each with its parent") {
  KvEventLog log(true, 2, 0);
  log.stored(5, std::nullopt, kFirst, "");
  log.stored(6, 4, kFirst, "");
  const std::string payload = log.drain(1.0);
  EXPECT(payload[10] == '\x92');
  EXPECT(payload.find(text("parent_block_hash") + "\x04") != std::string::npos);
}

SPEC("a run of removals is one event, and the order of kinds is kept") {
  KvEventLog log(true, 2, 0);
  log.removed(1, "");
  log.removed(2, "");
  log.cleared();
  log.removed(3, "");
  const std::string removed = text("type") + text("BlockRemoved") + text("block_hashes");
  const std::string medium = text("medium") + text("GPU");
  EXPECT(log.drain(1.0) ==
         batch(3, "\x83" + removed + "\x92\x01\x02" + medium + "\x81" + text("type") +
                      text("AllBlocksCleared") + "\x83" + removed + "\x91\x03" + medium));
}

SPEC("hashes travel as signed 64-bit integers") {
  KvEventLog log(true, 2, 0);
  log.removed(~ContentHash{0}, "");
  log.removed(0x8000000000000001, "");
  const std::string payload = log.drain(1.0);
  EXPECT(payload.find("\x92\xd2\xff\xff\xff\xff\xd3\x80\0\0\0\0\0\0\x01"s) != std::string::npos);
}

SPEC("a salted page carries its salt") {
  KvEventLog log(true, 2, 0);
  log.stored(5, std::nullopt, kFirst, "tenant-\xc3\xa4");
  EXPECT(log.drain(1.0).find(text("cache_salt") + text("tenant-\xc3\xa4")) != std::string::npos);
}

SPEC("pages under a salt that is no UTF-8 are not published") {
  for (const std::string& salt :
       std::vector{"\xff"s, "\xc3"s, "\xed\xa0\x80"s, "\xc0\x80"s, "\xf4\x90\x80\x80"s}) {
    KvEventLog log(true, 2, 0);
    log.stored(5, std::nullopt, kFirst, salt);
    log.removed(5, salt);
    EXPECT(log.empty());
  }
}

SPEC("a log that is off stays empty") {
  KvEventLog log(false, 2, 0);
  log.stored(5, std::nullopt, kFirst, "");
  log.removed(5, "");
  log.cleared();
  EXPECT(log.empty());
}
