// SPDX-License-Identifier: MIT
#include <vector>

#include "spec.h"
#include "ts/content_hash.h"

using ts::hash_page;
using ts::hash_salt;
using ts::Token;

SPEC("the hash of a page is the same on every machine") {
  const std::vector<Token> page{1, 2, 3, 4};
  EXPECT(hash_page(hash_salt(""), page) == 0x80beccf8a24dae4eULL);
  EXPECT(hash_page(hash_salt("tenant"), page) == 0x8abdb932c8411cccULL);
  const std::vector<Token> odd{7, 100000, 3};
  EXPECT(hash_page(hash_salt(""), odd) == 0xfd36ff6baa85d06dULL);
}

SPEC("the hash depends on every token, on their order and on the parent") {
  std::vector<Token> page(16, 5);
  const auto hash = hash_page(1, page);
  EXPECT(hash != hash_page(2, page));
  for (std::size_t i = 0; i < page.size(); ++i) {
    std::vector<Token> other = page;
    other[i] = 6;
    EXPECT(hash != hash_page(1, other));
    for (std::size_t j = 0; j < i; ++j) {
      std::vector<Token> moved = page;
      moved[j] = 6;
      EXPECT(hash_page(1, other) != hash_page(1, moved));
    }
  }
}

SPEC("salts of different length do not run into each other") {
  EXPECT(hash_salt("") != hash_salt(std::string_view("\0", 1)));
  EXPECT(hash_salt("a") != hash_salt(std::string_view("a\0", 2)));
}
