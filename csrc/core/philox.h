// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as
// easy as 1, 2, 3" (SC 2011): four 32-bit words from a 128-bit counter and a 64-bit key. A draw is a function
// of its name, so neither threads nor batch sizes nor devices change it.
//
// The key is the network's. Counters, lowest word first, each word modulo 2^32:
//   dropout        {unit / 4, sample, layer, step}; unit % 4 picks the word
//   augmentation   {0, sample, tag, step}; a word each for the flips and the moves
//   PhiloxStream   {draw / 4, number >> 32, tag, number}; draw % 4 picks the word. Tags are at the top, where
//   no
//                  layer's number is.
#pragma once
#include "core/inline.h"
#include "core/kinds.h"

namespace gemmule {

// The generator over words W: W::Word holds 32 significant bits, W::multiply(a, m) is the 64-bit product of
// a's low half and m. Upper halves may hold anything; multiply ignores them.
template <class W>
GM_INLINE void philox(typename W::Word (&x)[4], std::uint64_t key) {
  auto k0 = std::uint32_t(key), k1 = std::uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const typename W::Word even = W::multiply(x[0], 0xD2511F53u), odd = W::multiply(x[2], 0xCD9E8D57u);
    x[0] = (odd >> 32) ^ x[1] ^ std::uint64_t(k0);
    x[1] = odd;
    x[2] = (even >> 32) ^ x[3] ^ std::uint64_t(k1);
    x[3] = even;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

struct ScalarWords {
  using Word = std::uint64_t;
  GM_INLINE Word multiply(Word a, std::uint32_t m) { return Word(std::uint32_t(a)) * m; }
};

}  // namespace gemmule
