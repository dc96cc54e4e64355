"""What decides which rows an adapter learns from, and how they are split."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class PrepareSettings(BaseModel):
    """The filters of `prepare` and its split, frozen; the template and the columns are those of enrich's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, description="another seed puts other products into validation and test")
    min_characters: int = Field(default=20, ge=1, description="shorter descriptions are not learnt from")
    max_completion_tokens: int = Field(
        default=256, ge=8, le=4096, description="longer descriptions are not learnt from, in tokens of the base"
    )
    language: Literal["en", "pt"] | None = Field(
        default=None, description="keep only descriptions in this language; all when not given"
    )
    near_duplicates: bool = Field(default=True, description="keep one of several descriptions that are nearly the same")
    near_duplicate_similarity: float = Field(
        default=0.8, ge=0.5, le=1, description="share of common character 5-grams from which two texts are the same"
    )
    boilerplate_rows: int | None = Field(
        default=None,
        ge=1,
        description="a sentence in more texts than this is cut; the larger of 20 and 0.5 % of them when not given",
    )
    validation_share: float = Field(default=0.05, ge=0, lt=1, description="share of the products to stop training by")
    test_share: float = Field(default=0.05, ge=0, lt=1, description="share of the products to measure adapters by")
    license: str | None = Field(default=None, description="licence of the texts, for the model card")

    @model_validator(mode="after")
    def _leave_some_to_train(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave nothing to train on")
        return self
