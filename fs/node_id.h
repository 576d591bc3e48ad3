// What a node id (inode number) means.  A fresh worker knows every number from the index alone.
//
// 4 bits of kind, 60 of payload; 1 is the root, as FUSE wants it.
//   names  the row of a view above repos ("ORG", "datasets"): its listing moves
//   tree   the row of a view << 24 | ordinal in its snapshot's sorted tree
//   file   the row of a content: equal content at two paths is one inode, one copy in the page
//          cache
//   link   as tree, for a file that is shown as a symbolic link
//   text   the row of a view: a small file that is made from what the row says, always alike
//   live   the same, made anew for every reader
// Rows are never reused, and a view's commit never changes, so neither does what a number means.
#pragma once

#include <cstdint>

#include "store/index.h"

namespace cake {

constexpr uint64_t kRootNode = 1;

// On the wire to the kernel and in memory of mounts that outlive us: values are fixed.
enum class NodeKind : uint8_t {
  root = 0,
  names = 1,
  tree = 2,
  file = 3,
  link = 4,
  text = 5,
  live = 6,
};

constexpr unsigned kOrdinalBits = 24;
constexpr uint64_t kMaxOrdinal = (uint64_t{1} << kOrdinalBits) - 1;

inline NodeKind node_kind(uint64_t node) {
  return static_cast<NodeKind>(node >> 60);
}
inline uint64_t node_payload(uint64_t node) {
  return node & ((uint64_t{1} << 60) - 1);
}
inline uint64_t make_node(NodeKind kind, uint64_t payload) {
  return static_cast<uint64_t>(kind) << 60 | payload;
}
inline uint64_t names_node(RowId view) {
  return make_node(NodeKind::names, view);
}
inline uint64_t tree_node(RowId view, uint64_t ordinal) {
  return make_node(NodeKind::tree, view << kOrdinalBits | ordinal);
}
inline uint64_t link_node(RowId view, uint64_t ordinal) {
  return make_node(NodeKind::link, view << kOrdinalBits | ordinal);
}
inline uint64_t file_node(RowId content) {
  return make_node(NodeKind::file, content);
}
// Of a tree or link.
inline RowId view_of_tree(uint64_t node) {
  return node_payload(node) >> kOrdinalBits;
}
inline uint32_t ordinal_of_tree(uint64_t node) {
  return static_cast<uint32_t>(node_payload(node) & kMaxOrdinal);
}

}  // namespace cake
