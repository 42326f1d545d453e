"""What RecBole's checkpoints lack, and where they are read and written; see ``recbole_stream.host.checkpoints``."""

import functools

from recbole_stream.host.repairs.edit import edit

__all__ = ["keep_names", "leave_out_seen", "load_anywhere"]


def load_anywhere() -> None:
    """A checkpoint loads where it was trained only.

    quick_start.py:250-268 reads tensors of a GPU where there is none, keeps the
    paths of the training, asks about processes that are gone, and numbers the
    items anew. It does not load at all since torch 2.6 (``Weights only load
    failed``). The rest of the function is no longer reached.
    """
    from recbole.quick_start import load_data_and_model

    ours = "from recbole_stream.host.checkpoints import load; return load(model_file)"
    edit(load_data_and_model, {"checkpoint = torch.load(model_file)": ours})


def keep_names() -> None:
    """Numbers of users and items follow the order of rows in the files, which may grow after a training.

    dataset.py:1207 numbers them; trainer.py:308 writes checkpoints. The trainer
    sees its dataset last in collector.py:77.
    """
    from recbole.data.dataset import Dataset, KnowledgeBasedDataset
    from recbole.evaluator import Collector
    from recbole.trainer import Trainer

    collect, remap = Collector.data_collect, Dataset._remap_ID_all

    @functools.wraps(collect)
    def data_collect(self: Collector, train_data) -> None:
        dataset = train_data._dataset
        # with a knowledge graph items and entities are numbered a second time, together
        self.names = None if isinstance(dataset, KnowledgeBasedDataset) else dataset.field2id_token
        collect(self, train_data)

    @functools.wraps(remap)
    def remap_all(self: Dataset) -> None:
        from recbole_stream.host.checkpoints import drop_unknown

        remap(self)
        drop_unknown(self)

    Collector.data_collect, Dataset._remap_ID_all = data_collect, remap_all
    save = "torch.save(state, saved_model_file, pickle_protocol=4)"
    edit(
        Trainer._save_checkpoint,
        {save: f"from recbole_stream.host.checkpoints import add_vocabulary; add_vocabulary(self, state); {save}"},
    )
    factorize = "from recbole_stream.host.checkpoints import factorize; new_ids_list, mp = factorize("
    edit(
        Dataset._remap,
        {"new_ids_list, mp = pd.factorize(tokens)": factorize + "[field for _, field, _ in remap_list], tokens)"},
    )


def leave_out_seen() -> None:
    """Sequential models recommend what users have already, and RecBole has no key against it.

    general_dataloader.py:288 and case_study.py:57 have the means, and use them
    for general models only; see ``recbole_stream.host.seen``.
    """
    from recbole.data.dataloader import FullSortEvalDataLoader
    from recbole.data.dataset import SequentialDataset
    from recbole.utils.case_study import full_sort_scores

    index = "from recbole_stream.host.seen import seen_index; "
    edit(
        FullSortEvalDataLoader.collate_fn,
        {
            "return transformed_interaction, None, positive_u, positive_i":
                f"{index}return transformed_interaction, seen_index(self._dataset, interaction), positive_u, positive_i"
        },
    )  # fmt: skip
    edit(full_sort_scores, {"history_index = None": f"{index}history_index = seen_index(dataset, input_interaction)"})
    ready = "from recbole_stream.host.seen import note_ready_histories; return note_ready_histories(self)"
    edit(
        SequentialDataset._change_feat_format,
        {
            "        return\n": f"        {ready}\n",
            "self.data_augmentation()": "from recbole_stream.host.seen import augment; augment(self)",
        },
    )
