// Comparisons by keys (function secret sharing), eight at a time: what a tree's nodes are is said in ring/keyed.py, which
// defines the bits. AES under one public key, by the processor's instructions or, without them, by arithmetic in
// GF(2^8); no table, no branch and no address depends on a value.

#include "keyed.h"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__) && (defined(__linux__) || defined(__APPLE__))
#include <arm_neon.h>
#endif

extern "C" int spuvm_aes_level();

namespace {

constexpr int kRounds = 10, kWide = 8;
constexpr uint64_t kSeed = ~uint64_t{7};  // of a block's low word

struct Block {
  uint64_t low, high;
};

Block operator^(Block a, Block b) { return {a.low ^ b.low, a.high ^ b.high}; }
Block seed_of(Block a) { return {a.low & kSeed, a.high}; }
Block when(uint64_t bit, Block a) { return {a.low & (0 - bit), a.high & (0 - bit)}; }
uint64_t bit_of(uint64_t x, int at) { return x >> at & 1; }

// AES by arithmetic ------------------------------------------------------------------------------------------------

uint8_t twice(uint8_t x) { return (uint8_t)(x << 1) ^ (uint8_t)((x >> 7) * 0x1b); }

uint8_t times(uint8_t x, uint8_t y) {
  uint8_t out = 0;
  for (int i = 0; i < 8; ++i, x = twice(x)) out ^= (uint8_t)(x * (y >> i & 1));
  return out;
}

uint8_t substituted(uint8_t x) {
  uint8_t inverse = 1, power = x;  // x to the 254
  for (int i = 0; i < 7; ++i) inverse = times(inverse, power = times(power, power));
  uint8_t out = 0x63;
  for (int n = 0; n < 5; ++n) out ^= (uint8_t)(inverse << n | inverse >> (8 - n));
  return out;
}

struct Schedule {
  alignas(16) uint8_t bytes[16 * (kRounds + 1)] = {0x24, 0x3f, 0x6a, 0x88, 0x85, 0xa3, 0x08, 0xd3,
                                                   0x13, 0x19, 0x8a, 0x2e, 0x03, 0x70, 0x73, 0x44};
  Schedule() {
    uint8_t constant = 1;
    for (int i = 16; i < 16 * (kRounds + 1); i += 4) {
      uint8_t word[4];
      for (int j = 0; j < 4; ++j) word[j] = bytes[i - 4 + (i % 16 ? j : (j + 1) % 4)];
      if (i % 16 == 0) {
        for (uint8_t& b : word) b = substituted(b);
        word[0] ^= constant;
        constant = twice(constant);
      }
      for (int j = 0; j < 4; ++j) bytes[i + j] = bytes[i + j - 16] ^ word[j];
    }
  }
};

const Schedule& schedule() {
  static const Schedule made;
  return made;
}

void hash_plain(Block* blocks) {
  const uint8_t* key = schedule().bytes;
  for (int b = 0; b < kWide; ++b) {
    uint8_t x[16], y[16];
    std::memcpy(x, blocks + b, 16);
    for (int j = 0; j < 16; ++j) x[j] ^= key[j];
    for (int r = 1; r <= kRounds; ++r) {
      for (int j = 0; j < 16; ++j) y[j] = substituted(x[5 * j % 16]);  // ShiftRows: byte j comes from 5 j
      for (int j = 0; j < 16; ++j) {
        const uint8_t* column = y + (j & ~3);
        const uint8_t every = column[0] ^ column[1] ^ column[2] ^ column[3];
        x[j] = r == kRounds ? y[j] : (uint8_t)(y[j] ^ every ^ twice(y[j] ^ column[(j + 1) & 3]));
        x[j] ^= key[16 * r + j];
      }
    }
    Block out;
    std::memcpy(&out, x, 16);
    blocks[b] = blocks[b] ^ out;
  }
}

// ... and by instructions -------------------------------------------------------------------------------------------

#if defined(__x86_64__)

__attribute__((target("aes,sse4.1"))) void hash_fast(Block* blocks) {
  const __m128i* key = (const __m128i*)schedule().bytes;
  __m128i s[kWide];
  for (int i = 0; i < kWide; ++i) s[i] = _mm_xor_si128(_mm_loadu_si128((const __m128i*)blocks + i), key[0]);
  for (int r = 1; r < kRounds; ++r)
    for (int i = 0; i < kWide; ++i) s[i] = _mm_aesenc_si128(s[i], key[r]);
  for (int i = 0; i < kWide; ++i) {
    const __m128i x = _mm_loadu_si128((const __m128i*)blocks + i);
    _mm_storeu_si128((__m128i*)blocks + i, _mm_xor_si128(x, _mm_aesenclast_si128(s[i], key[kRounds])));
  }
}

#elif defined(__aarch64__) && (defined(__linux__) || defined(__APPLE__))

#if defined(__clang__)
__attribute__((target("aes")))
#else
__attribute__((target("+crypto")))
#endif
void hash_fast(Block* blocks) {
  uint8x16_t key[kRounds + 1], s[kWide];
  for (int r = 0; r <= kRounds; ++r) key[r] = vld1q_u8(schedule().bytes + 16 * r);
  for (int i = 0; i < kWide; ++i) s[i] = vld1q_u8((const uint8_t*)(blocks + i));
  for (int r = 0; r < kRounds - 1; ++r)
    for (int i = 0; i < kWide; ++i) s[i] = vaesmcq_u8(vaeseq_u8(s[i], key[r]));
  for (int i = 0; i < kWide; ++i) {
    const uint8x16_t x = vld1q_u8((const uint8_t*)(blocks + i));
    s[i] = veorq_u8(vaeseq_u8(s[i], key[kRounds - 1]), key[kRounds]);
    vst1q_u8((uint8_t*)(blocks + i), veorq_u8(s[i], x));
  }
}

#else

void hash_fast(Block* blocks) { hash_plain(blocks); }

#endif

bool by_arithmetic = false;

void hash(Block* blocks) { (spuvm_aes_level() && !by_arithmetic ? hash_fast : hash_plain)(blocks); }

// Trees --------------------------------------------------------------------------------------------------------------

constexpr int kLeaf = 7;

template <int kBits, bool kLess>
struct Tree {
  static constexpr int kLevels = kBits - kLeaf, kBlocks = kLevels + 1;

  // Which of the 128 values of the last bits relate to `low` as is asked.
  static Block truths(uint64_t low) {
    const uint64_t upper = low >> 6, one = uint64_t{1} << (low & 63);
    if (!kLess) return {one & (upper - 1), one & (0 - upper)};
    return {(one - 1) | (0 - upper), (one - 1) & (0 - upper)};
  }

  static void make(Block* key, const uint64_t* r, const Block* const roots[2], int count) {
    Block node[2][kWide] = {};
    uint64_t follows[2][kWide], value[kWide] = {};
    for (int p = 0; p < 2; ++p)
      for (int e = 0; e < kWide; ++e) {
        if (e < count) node[p][e] = seed_of(roots[p][e]);
        follows[p][e] = p;
      }
    for (int i = 0; i < kLevels; ++i) {
      Block child[2][2][kWide];
      for (int side = 0; side < 2; ++side)
        for (int p = 0; p < 2; ++p) {
          for (int e = 0; e < kWide; ++e) child[side][p][e] = {node[p][e].low | side, node[p][e].high};
          hash(child[side][p]);
        }
      for (int e = 0; e < count; ++e) {
        const uint64_t right = bit_of(r[e], kBits - 1 - i);
        Block kept[2], lost{};
        for (int p = 0; p < 2; ++p) {
          kept[p] = child[0][p][e] ^ when(right, child[0][p][e] ^ child[1][p][e]);
          lost = lost ^ child[0][p][e] ^ child[1][p][e] ^ kept[p];
        }
        const uint64_t to_left = bit_of(child[0][0][e].low ^ child[0][1][e].low, 0) ^ right ^ 1;
        const uint64_t to_right = bit_of(child[1][0][e].low ^ child[1][1][e].low, 0) ^ right;
        const uint64_t adds = bit_of(lost.low, 1) ^ value[e] ^ (kLess ? right : 0);
        const Block correction = seed_of(lost);
        key[e * kBlocks + i] = {correction.low | to_left | to_right << 1 | adds << 2, correction.high};
        value[e] ^= bit_of(kept[0].low ^ kept[1].low, 1) ^ adds;
        const uint64_t goes = to_left ^ (right & (to_left ^ to_right));
        for (int p = 0; p < 2; ++p) {
          node[p][e] = seed_of(kept[p]) ^ when(follows[p][e], correction);
          follows[p][e] = bit_of(kept[p].low, 0) ^ (follows[p][e] & goes);
        }
      }
    }
    for (int p = 0; p < 2; ++p) {
      for (int e = 0; e < kWide; ++e) node[p][e].low |= 2;
      hash(node[p]);
    }
    for (int e = 0; e < count; ++e) {
      const Block all = when(value[e], {~uint64_t{0}, ~uint64_t{0}});
      key[e * kBlocks + kLevels] = node[0][e] ^ node[1][e] ^ truths(r[e] & 127) ^ all;
    }
  }

  static void read(uint8_t* out, const uint64_t* c, const Block* key, const Block* root, int party, int count) {
    Block node[kWide] = {};
    uint64_t follows[kWide], value[kWide] = {};
    for (int e = 0; e < kWide; ++e) {
      if (e < count) node[e] = seed_of(root[e]);
      follows[e] = party;
    }
    for (int i = 0; i < kLevels; ++i) {
      for (int e = 0; e < count; ++e) node[e].low |= bit_of(c[e], kBits - 1 - i);
      hash(node);
      for (int e = 0; e < count; ++e) {
        const Block correction = key[e * kBlocks + i];
        const uint64_t low = correction.low, right = bit_of(c[e], kBits - 1 - i);
        const uint64_t goes = bit_of(low, 0) ^ (right & (bit_of(low, 0) ^ bit_of(low, 1)));
        const uint64_t follow = follows[e];
        value[e] ^= bit_of(node[e].low, 1) ^ (follow & bit_of(low, 2));
        follows[e] = bit_of(node[e].low, 0) ^ (follow & goes);
        node[e] = seed_of(node[e]) ^ when(follow, seed_of(correction));
      }
    }
    for (int e = 0; e < kWide; ++e) node[e].low |= 2;
    hash(node);
    for (int e = 0; e < count; ++e) {
      const Block end = node[e] ^ when(follows[e], key[e * kBlocks + kLevels]);
      const uint64_t word = end.low ^ ((0 - bit_of(c[e], 6)) & (end.low ^ end.high));
      out[e] = (uint8_t)(value[e] ^ bit_of(word, (int)(c[e] & 63)));
    }
  }

  static void make_all(void* d, const void* r, const void* a, const void* b, int64_t words) {
    for (int64_t i = 0, n = words / (2 * kBlocks); i < n; i += kWide) {
      const Block* const roots[2] = {(const Block*)a + i, (const Block*)b + i};
      make((Block*)d + i * kBlocks, (const uint64_t*)r + i, roots, (int)std::min<int64_t>(kWide, n - i));
    }
  }

  template <int kParty>
  static void read_all(void* d, const void* c, const void* key, const void* root, int64_t n) {
    for (int64_t i = 0; i < n; i += kWide)
      read((uint8_t*)d + i, (const uint64_t*)c + i, (const Block*)key + i * kBlocks, (const Block*)root + i, kParty,
           (int)std::min<int64_t>(kWide, n - i));
  }
};

}  // namespace

#define FUNCTIONS(NAME, BITS, LESS)                                                                       \
  void NAME##_keys(void* d, const void* a, const void* b, const void* c, int64_t n) {                     \
    Tree<BITS, LESS>::make_all(d, a, b, c, n);                                                            \
  }                                                                                                       \
  void NAME##_first(void* d, const void* a, const void* b, const void* c, int64_t n) {                    \
    Tree<BITS, LESS>::read_all<0>(d, a, b, c, n);                                                         \
  }                                                                                                       \
  void NAME##_second(void* d, const void* a, const void* b, const void* c, int64_t n) {                   \
    Tree<BITS, LESS>::read_all<1>(d, a, b, c, n);                                                         \
  }
FUNCTIONS(less_63, 63, true)
FUNCTIONS(less_31, 31, true)
FUNCTIONS(equal_64, 64, false)
FUNCTIONS(equal_32, 32, false)

extern "C" {

// Operation number `which` of those that keyed.h lists, on whole arrays.
void spuvm_keyed(int which, void* d, const void* a, const void* b, const void* c, int64_t n) {
  typedef void (*Function)(void*, const void*, const void*, const void*, int64_t);
#define LISTED(NAME) NAME##_keys, NAME##_first, NAME##_second,
  static const Function all[] = {KEYED(LISTED)};
  all[which](d, a, b, c, n);
}

void spuvm_keyed_by_arithmetic(int whether) { by_arithmetic = whether; }  // for tests

}  // extern "C"
