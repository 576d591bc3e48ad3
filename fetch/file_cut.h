// Where a content is cut, found out once: from the store, else from its head, fetched and parsed.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "fetch/file_places.h"
#include "fetch/file_trouble.h"
#include "store/recipe.h"

namespace cake {

// A part of a FileReader, which it shares its life with: who calls `find` passes a pointer that
// keeps both.  Thread-safe.
class FileCut {
 public:
  // `on_head` is given a head that was fetched, once the recipe is known and before anyone who
  // waits for it.  References outlive this.
  FileCut(Fetcher& fetcher, const ContentRow& content, FileTrouble& trouble, FilePlaces& places,
          std::function<void(const Buffer&)> on_head)
      : fetcher_(fetcher),
        content_(content),
        trouble_(trouble),
        places_(places),
        on_head_(std::move(on_head)) {}

  bool is_known() const { return is_known_.load(std::memory_order_acquire); }
  // Only once is_known.
  const Recipe& recipe() const { return *recipe_; }

  // `then` runs when the recipe is there, or with the error that keeps it away.
  static void find(const std::shared_ptr<FileCut>& self, Done<std::monostate> then);

 private:
  struct HeadFetch;
  using HeadPtr = std::shared_ptr<HeadFetch>;

  Result<bool> load_or_cut() EXCLUDES(mutex_);
  Status store_cut(const Cut& cut, ByteSpan head) EXCLUDES(mutex_);
  void fetch_head(const HeadPtr& head);
  void head_ended(const HeadPtr& head, const Status& status);
  // Elsewhere, if this place refused and there is another.
  void retry_head(const HeadPtr& head, const Error& error);
  void retry_head_there(const HeadPtr& head, const Error& error);
  void cut_head(const Buffer& head);
  void finish(const Status& status) EXCLUDES(mutex_);

  // Constant after construction.
  Fetcher& fetcher_;
  const ContentRow& content_;
  FileTrouble& trouble_;
  FilePlaces& places_;
  const std::function<void(const Buffer&)> on_head_;

  // Written once, by whoever is cutting, before is_known_ becomes true; read freely after.
  std::optional<Recipe> recipe_;
  std::atomic<bool> is_known_{false};

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  bool is_cutting_ GUARDED_BY(mutex_) = false;
  std::vector<Done<std::monostate>> waiters_ GUARDED_BY(mutex_);
};

}  // namespace cake
